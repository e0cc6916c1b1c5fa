"""Interrupts: none is lost, none counts twice, and none interrupts a deferred section."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from mmq.system.signals import signals_deferred

BEGIN = """
import os, signal, sys, threading, time, weakref
from mmq.system.signals import Interrupt, signals_deferred
Interrupt().install()
def wait():
    for _ in range(6000):
        time.sleep(0.01)
"""
BODIES = {
    "in a finalizer": """
class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
try:
    Finalized()
    wait()
except KeyboardInterrupt:
    print("interrupted")
""",
    "in a weak reference's callback": """
class Referred: pass
referred = Referred()
held = weakref.ref(referred, lambda _: os.kill(os.getpid(), signal.SIGINT))
try:
    del referred
    wait()
except KeyboardInterrupt:
    print("interrupted")
""",
    "several at once": """
try:
    os.kill(os.getpid(), signal.SIGINT)
    wait()
except KeyboardInterrupt:
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), each)
        time.sleep(0.01)
    print("interrupted")
""",
    "in another thread, while this one waits": """
other = threading.Thread(target=time.sleep, args=(900,), daemon=True)
other.start()
try:
    threading.Timer(0.1, signal.pthread_kill, (other.ident, signal.SIGINT)).start()
    time.sleep(900)
except KeyboardInterrupt:
    print("interrupted")
""",
    "deferred, with another thread": """
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
time.sleep(0.1)
finished = False
try:
    with signals_deferred():
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), each)
            time.sleep(0.05)
        finished = True
    wait()
except KeyboardInterrupt:
    print("interrupted" if finished else "ended halfway")
""",
}


@pytest.mark.parametrize("case", BODIES)
def test_an_interrupt_arrives_once(case):
    command = [sys.executable, "-c", BEGIN + BODIES[case]]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert (result.stdout, result.stderr) == ("interrupted\n", "")


def test_a_second_interrupt_works_after_a_while():
    body = """
import mmq.system.signals
mmq.system.signals.PATIENCE = 0.1
try:
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)
        wait()
except KeyboardInterrupt:
    print("interrupted again")
"""
    command = [sys.executable, "-c", BEGIN + body]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert (result.stdout, result.stderr) == ("interrupted again\n", "")


def test_the_signals_handler_gets_it_after_a_deferral():
    came = []
    before = signal.signal(signal.SIGTERM, lambda signum, frame: came.append(signum))
    try:
        with signals_deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
            assert came == []
        assert came == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_threads_than_the_main_one_defer_nothing():
    def work():
        with signals_deferred():
            done.append(True)

    done: list[bool] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
