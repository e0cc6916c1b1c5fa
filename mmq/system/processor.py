"""The machine that times were measured on, and the memory of a process."""

import os
import platform
import sys
from pathlib import Path

import psutil


def processor_name(device: str) -> str:
    """The name of what computes on a device, e.g. "AMD EPYC 9654" or "NVIDIA H200"."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine(device: str, threads: int) -> str:
    """The processor of a device, with the usable cores and the threads of the computation."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    own = f"{processor_name('cpu')}, {cores} cores, {threads} threads"
    return own if device == "cpu" else f"{processor_name(device)}, {own}"


def resident_bytes(process: int) -> int:
    """Memory that a process has now, in bytes."""
    return int(psutil.Process(process).memory_info().rss)


def peak_bytes(process: int) -> int | None:
    """The peak memory of a process; None where the system does not record it."""
    if sys.platform != "linux":
        return None
    status = Path(f"/proc/{process}/status").read_text()
    peaks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(peaks[0]) * 1024 if peaks else None
