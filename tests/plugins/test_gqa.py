"""GQA: exact match after normalization, by type where the file has it."""

from pathlib import Path

import pytest
from mmq_plugins.evaluators.gqa import Gqa, exact_match, score_answers

from mmq.contracts import FileImage, QuestionSample
from mmq.testing import EvaluatorContract


class TestGqa(EvaluatorContract):
    def make(self):
        return Gqa(num_beams=1)


@pytest.mark.parametrize(
    ("answer", "right", "same"),
    [
        ("The dog.", "dog", True),
        ("two", "2", True),
        ("dont know", "don't know", True),
        ("t-shirt", "t-shirt", True),
        ("yes", "no", False),
        ("a red car", "red car", True),
        ("red", "red car", False),
        ("", "yes", False),
        ("left\n", "left", True),
    ],
)
def test_answers_are_compared_after_the_official_normalization(answer, right, same):
    assert exact_match(answer, right) is same


@pytest.mark.parametrize(
    ("answer", "right", "normalized", "lavis", "official"),
    [
        ("red", "red", True, True, True),
        ("Red.", "red", True, True, False),
        ("t-shirt", "t-shirt", True, False, True),  # LAVIS leaves the right answer as it is
        ("The Red", "the red", True, False, False),
        ("two", "two", True, False, True),
        ("", "", True, True, True),
        (" red", "red", True, True, False),
    ],
)
def test_each_rule_normalizes_its_own_sides(answer, right, normalized, lavis, official):
    assert exact_match(answer, right, "normalized") is normalized
    assert exact_match(answer, right, "lavis") is lavis
    assert exact_match(answer, right, "official") is official


def test_the_rule_decides_the_score():
    samples, outputs = [sample("1", "red"), sample("2", "blue")], ["red", "Blue"]
    assert Gqa().scorer(samples).score(samples, outputs).score.value == 100
    assert Gqa(rule="official").scorer(samples).score(samples, outputs).score.value == 50
    assert Gqa(rule="official").scorer(samples).values(samples, outputs) == [100, 0]
    with pytest.raises(ValueError, match="rule: 'vqa' is not one of"):
        Gqa(rule="vqa")


def sample(key, answer, *types):
    return QuestionSample(key, key, (FileImage(Path("x.jpg")),), "what?", (answer,), "", types)


def test_accuracy_comes_by_type_where_the_file_has_types():
    query = (("structural", "query"), ("semantic", "attr"), ("detailed", "activity"))
    verify = (("structural", "verify"), ("semantic", "rel"))
    samples = [sample("1", "red", *query), sample("2", "yes", *verify), sample("3", "no", *verify)]
    metrics = score_answers(samples, ["red", "yes", "yes"]).metrics
    assert {name: metric.value for name, metric in metrics.items()} == {
        "gqa/accuracy": pytest.approx(200 / 3),
        "gqa/accuracy_binary": 50,
        "gqa/accuracy_open": 100,
        "gqa/accuracy_semantic_attr": 100,
        "gqa/accuracy_semantic_rel": 50,
        "gqa/accuracy_structural_query": 100,
        "gqa/accuracy_structural_verify": 50,
    }
    plain = score_answers([sample("1", "red")], ["red"]).metrics
    assert list(plain) == ["gqa/accuracy"]


def test_types_with_any_characters_are_counted_under_names_that_can_be_logged():
    samples = [
        sample(str(k), "red", ("semantic", kind)) for k, kind in enumerate(["a & b", "a/b"])
    ]
    metrics = score_answers(samples, ["red", "no"]).metrics
    assert {name: metric.value for name, metric in metrics.items()} == {
        "gqa/accuracy": 50,
        "gqa/accuracy_semantic_a___b": 100,
        "gqa/accuracy_semantic_a_b": 0,
    }
