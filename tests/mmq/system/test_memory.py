"""Memory of freed tensors that glibc retains can be returned to the system."""

from pathlib import Path

import pytest
import torch

from mmq.system import memory as heap


def resident():
    """Anonymous memory of this process, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


@pytest.mark.skipif(heap._malloc_trim() is None, reason="the C library is not glibc")
def test_freed_tensors_below_a_live_one_are_returned_to_the_system():
    heap.trim()
    before = resident()
    small = [torch.ones(25_000) for _ in range(2000)]  # 100 kB each: from the heap
    kept = small[-1]
    del small
    left = resident() - before
    heap.trim()
    assert resident() - before < left / 4
    assert left > 100
    assert kept.sum() == 25_000


def test_too_little_memory_is_explained_and_other_errors_are_not():
    for error in (MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB\nmore")):
        assert "Start fewer --workers" in heap.shortage(error)
    assert "(CUDA out of memory. Tried 2 GiB)" in heap.shortage(error)
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.int8)
    assert "can't allocate memory" in heap.shortage(caught.value)
    assert heap.shortage(RuntimeError("shapes differ")) is None
