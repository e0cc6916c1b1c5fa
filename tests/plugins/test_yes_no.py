"""Yes or no: POPE's scores agree with a naive transcription of its script."""

import itertools
import random

import pytest
from mmq_plugins.evaluators.yes_no import YesNo, read_pope, read_word

from mmq.contracts import BytesImage, QuestionSample
from mmq.errors import InputError
from mmq.testing import EvaluatorContract

OUTPUTS = [
    "Yes", "yes.", "No", "no,", "NO", "No, there is not.", "There is no dog", "not sure",
    "nothing",
    "Yes, there is no doubt", "Yes. No.", "cat", "", ".no", "know", "nope", "No\tdog", "no; yes",
]  # fmt: skip


class TestYesNo(EvaluatorContract):
    def make(self):
        return YesNo(num_beams=1)


def samples(labels):
    image = (BytesImage("x", b""),)
    return [
        QuestionSample(str(k), str(k), image, "Is it?", (label,), "")
        for k, label in enumerate(labels)
    ]


def official_pope(texts, labels):
    """RUCAIBox/POPE, evaluate.py: accuracy, precision, recall, F1, share of yes."""
    answers = []
    for text in texts:
        if text.find(".") != -1:
            text = text.split(".")[0]
        words = text.replace(",", "").split(" ")
        answers.append("no" if "No" in words or "not" in words or "no" in words else "yes")
    tp = sum(a == "yes" and b == "yes" for a, b in zip(answers, labels, strict=True))
    fp = sum(a == "yes" and b == "no" for a, b in zip(answers, labels, strict=True))
    tn = sum(a == "no" and b == "no" for a, b in zip(answers, labels, strict=True))
    fn = sum(a == "no" and b == "yes" for a, b in zip(answers, labels, strict=True))
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    f1 = 2 * precision * recall / (precision + recall)
    return (tp + tn) / len(texts), precision, recall, f1, answers.count("yes") / len(answers)


def test_all_scores_agree_with_popes_script():
    rng = random.Random(1)
    labels = rng.choices(["yes", "no"], k=200)
    texts = rng.choices(OUTPUTS, k=200)
    evaluation = YesNo().scorer([]).score(samples(labels), texts)
    names = ("accuracy", "precision", "recall", "F1", "yes_ratio")
    values = [evaluation.metrics[f"yes-no/{name}"].value for name in names]
    assert values == pytest.approx([100 * value for value in official_pope(texts, labels)])
    assert "yes-no/F1" not in evaluation.per_sample


def test_every_output_is_read_as_the_script_reads_it():
    for text, label in itertools.product(OUTPUTS, ("yes", "no")):
        right = read_pope(text) == label
        assert right == (official_pope([text, "Yes"], [label, "yes"])[0] == 1), text


def test_the_word_rule_needs_yes_or_no_first_and_unclear_outputs_are_counted():
    assert [read_word(text) for text in ("**Yes**", "nope", "There is no dog", "")] == [
        "yes", "", "", "",
    ]  # fmt: skip
    evaluation = YesNo(rule="word").scorer([]).score(samples(["yes", "no"]), ["cat", "No way"])
    assert evaluation.score.value == 50
    assert evaluation.metrics["yes-no/unclear"].value == 50


def test_scores_without_a_yes_are_undefined():
    evaluation = YesNo().scorer([]).score(samples(["no", "no"]), ["No", "no"])
    assert {*evaluation.undefined} == {"yes-no/precision", "yes-no/recall", "yes-no/F1"}


def test_other_answers_are_refused():
    with pytest.raises(InputError, match="1 of 2 answers are neither yes nor no.*'red'"):
        YesNo().check_samples(samples(["Yes", "red"]), [])
