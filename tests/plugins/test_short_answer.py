"""Short answers: every rule agrees with a naive transcription of the published one."""

import itertools

import pytest
from mmq_plugins.evaluators.answer_rules import best, exact
from mmq_plugins.evaluators.short_answer import ShortAnswer, ShortAnswerScorer

from mmq.contracts import BytesImage, ShortAnswerSample
from mmq.errors import InputError
from mmq.testing import EvaluatorContract

STRINGS = [
    "", " ", "0", "0.0", "-0", "1", "1.05", "1.0500001", "1.06", "100", "100%", "1%", "0.01", "95",
    "95%", "%", "%%", "5 %", "-5", "-4.8", "1e2", "1_00", "inf", "nan", "1,000", "1000", "$10",
    "Yes", "yes", "yes.", "No", "hello", "HELLO", "hallo", "help", "hel lo", " hello  world ",
    "hello world", "ab", "cb", "abc", "straße", "STRASSE", "İ", "x^2 + 1", "x^2+1", "X^2+1",
]  # fmt: skip


class TestShortAnswer(EvaluatorContract):
    def make(self):
        return ShortAnswer(num_beams=1, metric="anls")


def official_relaxed(target, prediction, max_relative_change=0.05):
    """google-research/pix2struct, metrics.py, relaxed_correctness."""

    def to_float(text):
        try:
            if text.endswith("%"):
                return float(text.rstrip("%")) / 100.0
            return float(text)
        except ValueError:
            return None

    prediction_float, target_float = to_float(prediction), to_float(target)
    if prediction_float is not None and target_float:
        change = abs(prediction_float - target_float) / abs(target_float)
        return change <= max_relative_change
    return prediction.lower() == target.lower()


def official_anls(answers, prediction, threshold=0.5):
    """The Robust Reading Competition's script for DocVQA, with a recursive edit distance."""
    from functools import cache

    @cache
    def distance(a, b):
        if not a or not b:
            return len(a) + len(b)
        return min(
            distance(a[1:], b) + 1,
            distance(a, b[1:]) + 1,
            distance(a[1:], b[1:]) + (a[0] != b[0]),
        )

    values = []
    for answer in answers:
        gt = " ".join(answer.strip().lower().split())
        det = " ".join(prediction.strip().lower().split())
        length = max(len(answer.upper()), len(prediction.upper()))
        values.append(0.0 if length == 0 else float(distance(gt, det)) / float(length))
    result = 1 - min(values)
    return 0 if result < threshold else result


def official_contains(answer, prediction, formula):
    """Yuliang-Liu/MultimodalOCR, OCRBench's example.py."""
    if formula:
        answer = answer.strip().replace("\n", " ").replace(" ", "")
        return answer in prediction.strip().replace("\n", " ").replace(" ", "")
    answer = answer.lower().strip().replace("\n", " ")
    return answer in prediction.lower().strip().replace("\n", " ")


def test_every_rule_agrees_with_its_published_script_on_adversarial_strings():
    formula = "Handwritten Mathematical Expression Recognition"
    for answer, output in itertools.product(STRINGS, STRINGS):
        given = (output, answer)
        assert best("relaxed", output, [answer]) == official_relaxed(answer, output), given
        assert best("anls", output, [answer]) == pytest.approx(official_anls([answer], output)), (
            given
        )
        for kind in ("", formula):
            right = official_contains(answer, output, bool(kind))
            assert best("contains", output, [answer], kind) == right, given


@pytest.mark.parametrize(
    ("output", "answer", "right"),
    [
        ("Blue.", "blue", True),
        (" light  BLUE", "Light blue", True),
        ("3.5", "35", False),
        ("3.50", "3.5", False),
        ("the dog", "dog", False),
        ("", ".", True),
        ("blue sky", "blue", False),
    ],
)
def test_exact_ignores_case_space_and_a_full_stop_alone(output, answer, right):
    assert exact(output, answer) is float(right) or exact(output, answer) == right


def sample(metric="", answers=("3",), key="1"):
    return ShortAnswerSample(
        key, key, (BytesImage("x", b""),), "How many?", answers, "", (), metric
    )


def test_the_data_choose_the_metric_and_the_option_overrides_it():
    assert ShortAnswer().scorer([sample("relaxed")]).metric == "relaxed"
    assert ShortAnswer().scorer([sample()]).metric == "exact"
    assert ShortAnswer(metric="anls").scorer([sample("relaxed")]).metric == "anls"


def test_samples_with_different_metrics_or_an_unknown_one_are_refused():
    for samples in ([sample("relaxed"), sample("anls", key="2")], [sample("bleu")]):
        with pytest.raises(InputError, match="choose one with --metric"):
            ShortAnswer().check_samples(samples, samples)
    with pytest.raises(ValueError, match="'blue' is not one of"):
        ShortAnswer(metric="blue")


def test_the_best_of_several_answers_counts_and_empty_ones_do_not():
    scorer = ShortAnswerScorer("contains")
    assert scorer.values([sample(answers=("", "ten"))], ["nine"]) == [0]
    evaluation = scorer.score([sample(answers=("9", "nine"))], ["it is nine"])
    assert evaluation.score.value == 100
    assert evaluation.primary == "short-answer/contains"
