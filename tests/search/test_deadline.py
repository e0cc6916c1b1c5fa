"""When a search stops starting trials."""

import time

import pytest
from mmq_search.deadline import Deadline, in_words

from mmq.contracts import LaunchRequest
from mmq.errors import InputError
from mmq.studies.workers import ending_at
from mmq.system import worker


def test_a_timeout_is_written_in_seconds_minutes_or_hours():
    assert Deadline.parse("").left is None
    assert not Deadline.parse("").passed
    assert [Deadline.parse(t).seconds for t in ("90", "90m", "1.5h")] == [90, 5400, 5400]
    assert Deadline(10, start=time.monotonic() - 11).passed
    assert in_words(3600 * 8) == "8 h 0 min"
    for text in ("0", "soon", "-5", "5 weeks"):
        with pytest.raises(InputError, match="timeout"):
            Deadline.parse(text)


def test_a_worker_that_waited_in_a_queue_stops_with_the_command_that_launched_it(monkeypatch):
    command = Deadline.parse("1h")
    request = ending_at(LaunchRequest("s", [["search"]]), command.until)
    for name, value in {**request.environment, worker.NUMBER: "1"}.items():
        monkeypatch.setenv(name, value)
    late = Deadline.parse("2h").no_later(worker.until())
    assert late.left == pytest.approx(3600, abs=600)
    assert Deadline.parse("60").no_later(worker.until()).seconds == 60
    assert Deadline.parse("").no_later(time.time() - 1).passed
    monkeypatch.delenv(worker.NUMBER)  # a command that a person starts in such an environment
    assert Deadline.parse("2h").no_later(worker.until()).seconds == 7200
