"""The memory that a process may use: its machine's, its control groups' and its own limits."""

import resource
from pathlib import Path

import psutil
import pytest

from mmq.system import available_memory as memory

MIB = 2**20


@pytest.fixture
def group(tmp_path, monkeypatch):
    """A control group inside another, with limits to write; returns a function that sets them."""
    inner = tmp_path / "job" / "step"
    inner.mkdir(parents=True)
    monkeypatch.setattr(memory, "_groups", lambda: [(tmp_path, "/job/step")])

    def limit(folder, size, used, cached=0, names=("memory.max", "memory.current")):
        place = tmp_path / folder
        for name, value in zip(names, (size, used), strict=True):
            (place / name).write_text(f"{value}\n")
        kind = "inactive_file" if "max" in names[0] else "total_inactive_file"
        (place / "memory.stat").write_text(f"anon 1\n{kind} {cached}\n")

    return limit


def test_the_tightest_control_group_counts_and_its_cache_is_free(group):
    group("job", 900 * MIB, 500 * MIB, cached=100 * MIB)
    group("job/step", "max", 300 * MIB)
    assert memory.available_memory() == 500 * MIB
    group("job/step", 400 * MIB, 300 * MIB)
    assert memory.available_memory() == 100 * MIB


def test_control_groups_of_version_1_count_too(group):
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    group("job", 64 * MIB, 14 * MIB, cached=10 * MIB, names=names)
    assert memory.available_memory() == 60 * MIB


def test_a_group_over_its_limit_has_nothing_left(group):
    group("job", 10 * MIB, 20 * MIB)
    assert memory.available_memory() == 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="counts data on Linux alone")
def test_a_limit_by_ulimit_counts(monkeypatch):
    monkeypatch.setattr(memory, "_groups", list)
    used = psutil.Process().memory_info().data
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (used + 200 * MIB, before[1]))
    try:
        assert 0 < memory.available_memory() <= 200 * MIB
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def test_without_limits_the_machines_free_memory_counts(monkeypatch):
    monkeypatch.setattr(memory, "_groups", list)
    assert 0 < memory.available_memory() <= psutil.virtual_memory().total
