"""Child processes that answer lines: how they ended is reported, every wait has a timeout."""

import os
import signal
import sys

import pytest
from mmq_plugins.evaluators import line_process
from mmq_plugins.evaluators.line_process import ChildError, LineProcess

ECHO = """
import sys
for line in sys.stdin:
    print(line.upper(), end="", flush=True)
"""


def child(tmp_path, code):
    return LineProcess([sys.executable, "-c", code], tmp_path, dict(os.environ))


def test_lines_are_answered_in_order_however_long_they_are(tmp_path):
    echo = child(tmp_path, ECHO)
    long = "word " * 100_000  # more than any pipe holds
    assert echo.ask("a é 😀", 300) == ["A É 😀"]
    assert echo.ask(long, 300) == [long.upper()]
    assert echo.alive
    echo.close()
    echo.close()
    assert not echo.alive


def test_several_answers_to_one_line_are_read_and_no_more(tmp_path):
    twice = child(tmp_path, "for _ in range(2): x = input(); print(x); print(x + x)")
    assert twice.ask("a", 300, answers=2) == ["a", "aa"]
    assert twice.ask("b", 300, answers=2) == ["b", "bb"]
    twice.close()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("input(); import sys; sys.exit('no memory')", "exit code 1: no memory"),
        ("input(); import os; os.kill(os.getpid(), 9)", "signal 9"),
        ("import sys; sys.exit(3)", "exit code 3"),
        ("print('half', end='', flush=True); input()", "exit code 0"),
    ],
)
def test_how_a_child_ended_is_reported(tmp_path, monkeypatch, code, message):
    monkeypatch.setattr(line_process, "GRACE", 300)
    dead = child(tmp_path, code)
    with pytest.raises(ChildError, match=message):
        dead.ask("x", 300)
    assert not dead.alive


@pytest.mark.parametrize("line", ["x", "x" * 1_000_000])  # one waits to read, one to write
def test_a_child_that_hangs_is_ended(tmp_path, line):
    hung = child(tmp_path, "import time; time.sleep(600)")
    pid = hung.pid
    with pytest.raises(ChildError, match="did not answer within 0.2 s"):
        hung.ask(line, 0.2)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_signal_ends_the_wait_and_the_child(tmp_path):
    interrupt = "import os, signal, time; input(); os.kill(os.getppid(), signal.SIGTERM)"
    hung = child(tmp_path, f"{interrupt}; time.sleep(600)")
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            hung.ask("x", 300)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not hung.alive


def test_an_unreferenced_child_process_is_ended(tmp_path):
    forgotten = child(tmp_path, ECHO)
    pid = forgotten.pid
    del forgotten
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_line_break_inside_a_line_is_our_own_bug(tmp_path):
    echo = child(tmp_path, ECHO)
    with pytest.raises(ValueError, match="is not one line"):
        echo.ask("a\nb", 1)
    echo.close()
