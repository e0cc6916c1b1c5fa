"""When a search stops starting trials."""

import time

import pytest
from mmq_search.deadline import Deadline, in_words

from mmq.errors import InputError


def test_a_timeout_is_written_in_seconds_minutes_or_hours():
    assert Deadline.parse("").left is None
    assert not Deadline.parse("").passed
    assert [Deadline.parse(t).seconds for t in ("90", "90m", "1.5h")] == [90, 5400, 5400]
    assert Deadline(10, start=time.monotonic() - 11).passed
    assert in_words(3600 * 8) == "8 h 0 min"
    for text in ("0", "soon", "-5", "5 weeks"):
        with pytest.raises(InputError, match="timeout"):
            Deadline.parse(text)
