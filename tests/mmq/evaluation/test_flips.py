"""Flips: answers that differ from the unquantized model's."""

from dataclasses import dataclass

import pytest
from mmq_plugins.evaluators.choice import Choice
from mmq_plugins.evaluators.yes_no import YesNo
from trial_records import eval_spec

from mmq.analysis.budgets import Budget
from mmq.analysis.fronts import Point
from mmq.analysis.selection import select
from mmq.contracts import (
    BytesImage,
    ChoiceSample,
    Evaluation,
    Metric,
    Prediction,
    QuestionSample,
)
from mmq.errors import InputError
from mmq.evaluation.flips import UnquantizedAnswers, answers_of, with_flips


@dataclass
class Asked:
    id: str
    image_id: str


SAMPLES = [Asked(str(k), f"picture {k // 2}") for k in range(8)]


def evaluation(texts):
    answers = [
        Prediction(s.id, (), "?", t, "yes", 1.0) for s, t in zip(SAMPLES, texts, strict=False)
    ]
    return Evaluation("m", {"m": Metric(1.0, len(texts))}, {"m": [1.0] * len(texts)}, answers)


UNQUANTIZED = {sample.id: "yes" for sample in SAMPLES}


def test_changed_answers_count_and_case_and_spaces_do_not():
    flips = with_flips(evaluation(["no", "no", *["YES "] * 6]), UNQUANTIZED, SAMPLES)
    metric = flips.metrics["flips"]
    assert (metric.value, metric.n) == (25.0, 8)
    assert metric.low < 25 < metric.high
    assert flips.per_sample["flips"] == [1.0, 1.0, *[0.0] * 6]
    assert flips.score.value == 1.0


CHOICE = ChoiceSample("1", "p", (BytesImage("p", b""),), "?", ("A",), "", (), ("a cat", "a dog"))
YES_NO = QuestionSample("1", "p", (BytesImage("p", b""),), "?", ("yes",), "")


@pytest.mark.parametrize(
    ("evaluator", "sample", "before", "after", "flips"),
    [
        (Choice(), CHOICE, "A", "(A) a cat", 0),
        (Choice(), CHOICE, "A. a cat", "B. a cat", 100),
        (Choice(), CHOICE, "who knows", "no idea", 0),  # neither names an option
        (Choice(), CHOICE, "A", "no idea", 100),
        (Choice(circular=True), CHOICE, "A\nB", "a cat\n(B)", 0),
        (Choice(circular=True), CHOICE, "A\nB", "A\nA", 100),
        (YesNo(), YES_NO, "Yes", "Yes, there is one.", 0),
        (YesNo(), YES_NO, "Yes", "There is not", 100),
        (YesNo(rule="word"), YES_NO, "yes", "a dog", 100),
    ],
)
def test_flips_compare_what_the_evaluators_rule_reads(evaluator, sample, before, after, flips):
    with evaluator.scorer([sample]) as scorer:
        unquantized, quantized = (scorer.score([sample], [text]) for text in (before, after))
    compared = with_flips(quantized, answers_of(unquantized.predictions), [sample])
    assert compared.metrics["flips"].value == flips
    assert quantized.predictions[0].text == after


def test_a_part_of_the_samples_has_its_flips_and_unknown_samples_have_none():
    part = with_flips(evaluation(["no", "yes"]), UNQUANTIZED, SAMPLES)
    assert part.metrics["flips"].value == 50
    assert "flips" not in with_flips(evaluation(["no"]), {}, SAMPLES).metrics


def test_the_unquantized_answers_are_those_of_any_quantizer(tmp_path, monkeypatch):
    monkeypatch.setenv("MMQ_HOME", str(tmp_path))
    UnquantizedAnswers(eval_spec(quantizer="rtn")).put(UNQUANTIZED)
    assert UnquantizedAnswers(eval_spec(quantizer="gptq", calibrated=True)).get() == UNQUANTIZED
    assert UnquantizedAnswers(eval_spec(data_fingerprint="other")).get() is None


def test_a_bound_on_flips_excludes_models_with_more_and_with_unknown_ones():
    points = [
        Point("a=16", 16, 100),
        Point("a=4", 4, 100, flips=(5.0, 1.0, 9.0)),
        Point("a=5", 5, 100, flips=(2.0, 0.0, 4.0)),
        Point("a=3", 3, 100),
    ]
    (selection,) = select(points, Budget.parse(max_flips="2%"), 1, lambda _: None, [])
    assert selection.point == points[2]
    assert selection.criterion == "smallest within 1% with at most 2% flips"
    for text in ("2", "100%", "-1%", "x%"):
        with pytest.raises(InputError, match="max-flips"):
            Budget.parse(max_flips=text)
