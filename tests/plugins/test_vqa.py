"""VQA accuracy against an independent, literal transcription of the official rule."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmq_plugins.evaluators.vqa import Vqa, score_answers
from mmq_plugins.evaluators.vqa_answers import CONTRACTIONS, soft_accuracy

from mmq.contracts import QuestionSample
from mmq.testing import EvaluatorContract


class TestVqa(EvaluatorContract):
    def make(self):
        return Vqa(num_beams=2, batch_size=5)


MARKS = list(';/[]"{}()=+\\_-><@`,?!')
COUNT = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
NUMBERS = {"none": "0"} | {word: str(number) for number, word in enumerate(COUNT)}


def literal_punctuation(text):
    out = text
    for p in MARKS:
        if (p + " " in text or " " + p in text) or re.search(r"(\d)(\,)(\d)", text) is not None:
            out = out.replace(p, "")
        else:
            out = out.replace(p, " ")
    return re.sub(r"(?!<=\d)(\.)(?!\d)", "", out, count=32)


def literal_words(text):
    out = []
    for word in text.lower().split():
        word = NUMBERS.get(word, word)
        if word not in ("a", "an", "the"):
            out.append(word)
    for k, word in enumerate(out):
        if word in CONTRACTIONS:
            out[k] = CONTRACTIONS[word]
    return " ".join(out)


def literal_accuracy(answer, annotators):
    answer = answer.replace("\n", " ").replace("\t", " ").strip()
    answer = literal_words(literal_punctuation(answer))
    if len(set(annotators)) > 1:
        annotators = [literal_punctuation(a) for a in annotators]
    accuracies = []
    for left_out in range(len(annotators)):
        others = [a for k, a in enumerate(annotators) if k != left_out]
        accuracies.append(min(1, sum(a == answer for a in others) / 3))
    return sum(accuracies) / len(accuracies)


WORDS = st.sampled_from(
    ["a", "The", "two", "TEN", "none", "dont", "couldnt've", "yes", "no", "1,000", "3.5", "u.s.",
     "left-right", "its", "it's", "(red)", "blue/green", "what?", "", "\n", "10 .", "`", "x;y"]
)  # fmt: skip
ANSWER = st.lists(WORDS, min_size=0, max_size=4).map(" ".join)


@given(ANSWER, st.lists(ANSWER, min_size=10, max_size=10))
@settings(max_examples=500, deadline=None)
def test_accuracy_equals_the_literal_rule(answer, annotators):
    assert soft_accuracy(answer, annotators) == pytest.approx(literal_accuracy(answer, annotators))


@given(st.lists(st.sampled_from(["red", "blue"]), min_size=10, max_size=10))
def test_accuracy_of_plain_words_equals_the_literal_rule(annotators):
    assert soft_accuracy("red", annotators) == pytest.approx(literal_accuracy("red", annotators))


@pytest.mark.parametrize(
    ("matches", "expected"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)]
)
def test_matches_are_worth_what_the_rule_says(matches, expected):
    annotators = ["red"] * matches + [f"other{k}" for k in range(10 - matches)]
    assert soft_accuracy("red", annotators) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [("Two.", "2"), ("a dog", "dog"), ("none", "0"), ("dont", "don't"),
     ("blue-green", "blue green"),
     ("1,000", "1000"), ("left/right", "left right"), (" yes\n", "yes")],
)  # fmt: skip
def test_answers_are_normalized(answer, reference):
    assert soft_accuracy(answer, [reference] * 10) == 1


def test_accuracy_comes_overall_and_per_answer_type():
    samples = [
        QuestionSample(str(k), str(k), Path("x.jpg"), "?", ("yes",) * 10, kind)
        for k, kind in enumerate(["yes/no", "yes/no", "number", "other"])
    ]
    evaluation = score_answers(samples, ["yes", "no", "yes", "no"])
    values = {name: metric.value for name, metric in evaluation.metrics.items()}
    assert values == {
        "vqa/accuracy": 50,
        "vqa/accuracy_yes_no": 50,
        "vqa/accuracy_number": 100,
        "vqa/accuracy_other": 0,
    }
    assert evaluation.per_sample["vqa/accuracy"] == [100, 0, 100, 0]
