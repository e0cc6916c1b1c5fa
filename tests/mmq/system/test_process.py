"""Owners of work: real processes, and the effect of clocks, reboots and containers."""

import os
import subprocess
import sys

import psutil
import pytest

import mmq.system.process
from mmq.system.process import host, is_gone, is_here, owner


@pytest.fixture
def sleeper():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(900)"])
    yield child
    child.kill()
    child.wait()


def of(process):
    return f"{host()}:{process.pid}:{mmq.system.process._started(process.pid)}"


def test_a_process_exists_until_it_ends_and_its_pid_alone_is_not_enough(sleeper):
    name = of(sleeper)
    assert is_here(name)
    assert not is_gone(name)
    assert is_gone(name[:-1] + str((int(name[-1]) + 1) % 10))  # a later one with its number
    sleeper.kill()
    while psutil.Process(sleeper.pid).status() != psutil.STATUS_ZOMBIE:
        pass
    assert is_gone(name)  # also before its parent has looked
    sleeper.wait()
    assert is_gone(name)


def test_setting_the_clock_changes_no_owner(monkeypatch):
    before, boot = owner(), psutil.boot_time
    monkeypatch.setattr(psutil, "boot_time", lambda: boot() + 3600)
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot() + 3600, raising=False)
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert owner() == before
    assert not is_gone(before)


def test_a_process_of_an_earlier_boot_is_gone(monkeypatch):
    before = owner()
    monkeypatch.setattr(mmq.system.process, "_boot", lambda: "another1")
    assert is_gone(before)


def test_a_process_of_another_machine_or_container_is_not_judged(monkeypatch):
    other = f"elsewhere:{2**22 - 1}:1-1"
    assert not is_here(other)
    assert not is_gone(other)
    outside = owner()
    monkeypatch.setattr(mmq.system.process.os, "readlink", lambda path: "pid:[4026539999]")
    inside = f"{host()}:{2**22 - 1}:1-1"
    assert is_gone(inside)
    assert not is_here(outside)
    assert not is_gone(outside)
    monkeypatch.setattr(mmq.system.process.os, "readlink", lambda path: "pid:[4026538888]")
    assert not is_here(inside)
    assert not is_gone(inside)


def test_owners_of_an_earlier_mmq_are_gone_only_where_that_is_certain(sleeper):
    shell = subprocess.Popen(["sleep", "900"])
    try:
        assert is_gone(f"{host()}:{shell.pid}:1700000000.00")  # no mmq has this number any more
        for started in ("1700000000.00", f"{psutil.Process(sleeper.pid).create_time():.2f}"):
            assert not is_gone(f"{host()}:{sleeper.pid}:{started}")  # the clock may have been set
            assert not is_here(f"{host()}:{sleeper.pid}:{started}")  # its heartbeat decides
    finally:
        shell.kill()
        shell.wait()
    assert is_gone(f"{host()}:{shell.pid}:1700000000.00")


def test_where_there_is_no_proc_start_times_may_differ_a_little(monkeypatch, tmp_path, sleeper):
    monkeypatch.setattr(mmq.system.process, "PROC", tmp_path)
    started = psutil.Process(sleeper.pid).create_time()
    assert not is_gone(f"{host()}:{sleeper.pid}:{started + 0.01:.2f}")
    assert is_gone(f"{host()}:{sleeper.pid}:{started - 60:.2f}")


def test_a_process_name_that_looks_like_a_state_is_parsed_correctly(tmp_path):
    program = tmp_path / "a) Z 1"
    program.symlink_to("/bin/sleep")
    child = subprocess.Popen([str(program), "900"])
    try:
        assert not is_gone(of(child))
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("text", ["", ":", "a:b:c", "host", f"{host()}::", f"{host()}:x:1"])
def test_invalid_owners_are_not_judged(text):
    assert not is_gone(text)
    assert not is_here(text)


def test_an_owner_can_be_part_of_a_files_name():
    assert "/" not in owner()
    assert owner().split(":")[1] == str(os.getpid())
