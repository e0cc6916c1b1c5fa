"""What an evaluation may contain, and which results are doubtful."""

import logging
from pathlib import Path

import pytest

from mmq import trial
from mmq.contracts import Evaluation, FileImage, Metric, Prediction


def evaluation(*rows, undefined=None):
    """Predictions given as (text, expected, score)."""
    return Evaluation(
        "x/score",
        {"x/score": Metric(0, len(rows))},
        {},
        [Prediction(str(k), (FileImage(Path("x.jpg")),), "?", *row) for k, row in enumerate(rows)],
        undefined or {},
    )


def test_right_answers_that_score_0_are_found_whatever_their_case_and_spaces():
    result = evaluation(
        ("Red  car ", "red car", 0), ("red car", "red car", 100), ("blue", "red", 0), ("", "", 0)
    ).right_but_worthless()
    assert [p.sample_id for p in result] == ["0"]


def test_a_metric_is_undefined_or_has_a_score_not_both():
    with pytest.raises(ValueError, match=r"undefined: \['x/score'\] also have scores"):
        evaluation(undefined={"x/score": "one picture"})


def test_doubts_are_reported_once_per_question_with_count_and_example(caplog):
    doubtful = evaluation(("two", "two", 0), ("no", "yes", 0), undefined={"x/meteor": "Java died"})
    with caplog.at_level(logging.WARNING):
        trial._report_doubts(doubtful, "q1")
        trial._report_doubts(doubtful, "q1")
    undefined, right = caplog.messages
    assert undefined == "x/meteor is undefined: Java died"
    assert right.startswith("1 of 2 predictions equal the expected answer and score 0, e.g. 'two'")
    trial._report_doubts(doubtful, "q2")
    assert len(caplog.messages) == 4


def test_a_sound_evaluation_raises_no_doubt(caplog):
    trial._report_doubts(evaluation(("red", "red", 100), ("a", "b", 0)), "q3")
    assert not caplog.messages
