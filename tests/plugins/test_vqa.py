"""VQA accuracy by each rule against an independent, literal transcription of it."""

import logging
import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmq_plugins.evaluators.gqa import Gqa
from mmq_plugins.evaluators.vqa import Vqa, score_answers
from mmq_plugins.evaluators.vqa_answers import soft_accuracy

from mmq.config import EvalOptions
from mmq.contracts import FileImage, QuestionSample
from mmq.errors import InputError
from mmq.prepare import prepare
from mmq.testing import EvaluatorContract
from mmq.tracking.params import eval_spec_params


class TestVqa(EvaluatorContract):
    def make(self):
        return Vqa(num_beams=2, batch_size=5)


MARKS = list(';/[]"{}()=+\\_-><@`,?!')
COUNT = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
# the official table word for word: what is written, what it is taken for, and so on
TABLE = """
aint ain't arent aren't cant can't couldve could've couldnt couldn't couldn'tve couldn't've
couldnt've couldn't've didnt didn't doesnt doesn't dont don't hadnt hadn't hadnt've hadn't've
hadn'tve hadn't've hasnt hasn't havent haven't hed he'd hed've he'd've he'dve he'd've hes he's
howd how'd howll how'll hows how's Id've I'd've I'dve I'd've Im I'm Ive I've isnt isn't itd it'd
itd've it'd've it'dve it'd've itll it'll let's let's maam ma'am mightnt mightn't mightnt've
mightn't've mightn'tve mightn't've mightve might've mustnt mustn't mustve must've neednt needn't
notve not've oclock o'clock oughtnt oughtn't ow's'at 'ow's'at 'ows'at 'ow's'at 'ow'sat 'ow's'at
shant shan't shed've she'd've she'dve she'd've she's she's shouldve should've shouldnt shouldn't
shouldnt've shouldn't've shouldn'tve shouldn't've somebody'd somebodyd somebodyd've somebody'd've
somebody'dve somebody'd've somebodyll somebody'll somebodys somebody's someoned someone'd
someoned've someone'd've someone'dve someone'd've someonell someone'll someones someone's
somethingd something'd somethingd've something'd've something'dve something'd've somethingll
something'll thats that's thered there'd thered've there'd've there'dve there'd've therere
there're theres there's theyd they'd theyd've they'd've they'dve they'd've theyll they'll theyre
they're theyve they've twas 'twas wasnt wasn't wed've we'd've we'dve we'd've weve we've werent
weren't whatll what'll whatre what're whats what's whatve what've whens when's whered where'd
wheres where's whereve where've whod who'd whod've who'd've who'dve who'd've wholl who'll whos
who's whove who've whyll why'll whyre why're whys why's wont won't wouldve would've wouldnt
wouldn't wouldnt've wouldn't've wouldn'tve wouldn't've yall y'all yall'll y'all'll y'allll
y'all'll yall'd've y'all'd've y'alld've y'all'd've y'all'dve y'all'd've youd you'd youd've
you'd've you'dve you'd've youll you'll youre you're youve you've
"""
CONTRACTIONS = dict(zip(TABLE.split()[::2], TABLE.split()[1::2], strict=True))
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


def literal_normalized(answer):
    answer = answer.replace("\n", " ").replace("\t", " ").strip()
    return literal_words(literal_punctuation(answer))


def literal_accuracy(answer, annotators):
    answer = literal_normalized(answer)
    if len(set(annotators)) > 1:
        annotators = [literal_punctuation(a) for a in annotators]
    accuracies = []
    for left_out in range(len(annotators)):
        others = [a for k, a in enumerate(annotators) if k != left_out]
        accuracies.append(min(1, sum(a == answer for a in others) / 3))
    return sum(accuracies) / len(accuracies)


def literal_official_accuracy(answer, annotators):
    """The official code since commit a013f00, step by step."""
    annotators = [a.replace("\n", " ").replace("\t", " ").strip() for a in annotators]
    answer = answer.replace("\n", " ").replace("\t", " ").strip()
    if len(set(annotators)) > 1:
        annotators = [literal_words(literal_punctuation(a)) for a in annotators]
        answer = literal_words(literal_punctuation(answer))
    accuracies = []
    for left_out in range(len(annotators)):
        others = annotators[:left_out] + annotators[left_out + 1 :]
        accuracies.append(min(1.0, len([a for a in others if a == answer]) / 3))
    return sum(accuracies) / len(accuracies)


LITERAL = {"lavis": literal_accuracy, "official": literal_official_accuracy}


WORDS = st.sampled_from(
    ["a", "The", "two", "TEN", "none", "dont", "couldnt've", "yes", "no", "1,000", "3.5", "u.s.",
     "left-right", "its", "it's", "shed", "lets", "let's", "shes", "she's", "hes", "hed", "(red)",
     "blue/green", "what?", "", "\n", "10 .", "`", "x;y"]
)  # fmt: skip
ANSWER = st.lists(WORDS, min_size=0, max_size=4).map(" ".join)


@pytest.mark.parametrize("rule", LITERAL)
@given(answers=st.lists(ANSWER, min_size=1, max_size=3), data=st.data())
@settings(max_examples=500, deadline=None)
def test_accuracy_equals_the_literal_rule(rule, answers, data):
    outputs = st.sampled_from([*answers, *map(literal_normalized, answers)])  # so that many match
    answer, annotators = data.draw(outputs), data.draw(st.lists(outputs, min_size=10, max_size=10))
    accuracy = soft_accuracy(answer, annotators, rule)
    assert accuracy == pytest.approx(LITERAL[rule](answer, annotators))


def random_answer(rng):
    pieces = [*MARKS, ".", ":", "'", " ", " ", "\n", "\t", "\u2028", "1,000", "2.5", "the", "Two",
              "dont", "\U0001f600", "é", "İ", "\ud800"]  # fmt: skip
    return "".join(rng.choices(pieces, k=rng.randrange(6)))


@pytest.mark.parametrize("rule", LITERAL)
def test_accuracy_of_random_strings_equals_the_literal_rule(rule):
    rng = random.Random(0)
    for _ in range(3000):
        pool = [random_answer(rng) for _ in range(rng.choice([1, 2, 2, 5]))]
        pool += [literal_normalized(text) for text in pool[: rng.randrange(2)]]
        annotators = rng.choices(pool, k=10)
        answer = rng.choice(pool)
        accuracy = soft_accuracy(answer, annotators, rule)
        assert accuracy == pytest.approx(LITERAL[rule](answer, annotators)), (answer, annotators)


@pytest.mark.parametrize(
    ("answer", "annotators", "lavis", "official"),
    [
        ("Yes", ["yes"] * 10, 1, 0),  # who agree are compared as they are
        ("Yes", ["yes"] * 9 + ["no"], 1, 1),
        ("two", ["two"] * 10, 0, 1),
        ("two", ["two"] * 9 + ["2"], 0.3, 1),
        ("the cat", ["the cat"] * 5 + ["a cat"] * 5, 0, 1),
        ("yes", ["yes\n"] * 10, 0, 1),  # white space goes on both sides
    ],
)
def test_the_rules_differ_where_the_official_code_changed(answer, annotators, lavis, official):
    assert soft_accuracy(answer, annotators, "lavis") == pytest.approx(lavis)
    assert soft_accuracy(answer, annotators, "official") == pytest.approx(official)


def test_the_rule_is_an_option_and_a_param_of_every_run():
    options = EvalOptions(model="embedded-llava", task="vqa", limit="4")
    for extra, expected in [({}, "lavis"), ({"rule": "official"}, "official")]:
        question = prepare(options, extra, lambda parts: []).eval_spec
        assert eval_spec_params(question)["evaluator.rule"] == expected
    with pytest.raises(InputError, match="rule: 'vqa' is not one of"):
        prepare(options, {"rule": "vqa"}, lambda parts: [])
    with pytest.raises(ValueError, match="rule: 'old' is not one of"):
        Vqa(rule="old")


def question(answers, k=0, kind="other"):
    return QuestionSample(str(k), str(k), (FileImage(Path("x.jpg")),), "?", tuple(answers), kind)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_fewer_answers_than_the_rule_needs_are_scored_by_exact_match(count, caplog):
    samples = [question(["a Red car", "blue", "green"][:count], k) for k in range(4)]
    vqa = Vqa()
    with caplog.at_level(logging.WARNING):
        vqa.check_samples(samples, samples)
    assert "4 of 4 questions have fewer than 4 answers" in caplog.text
    evaluation = vqa.scorer(samples).score(samples, ["red car.", "pink", "Red Car", "the red car"])
    assert evaluation.primary == "vqa/exact_match"
    assert {name: m.value for name, m in evaluation.metrics.items()} == {
        "vqa/exact_match": 75, "vqa/exact_match_other": 75,
    }  # fmt: skip
    assert vqa.scorer(samples).values(samples, ["red car"] * 4) == [100] * 4


@pytest.mark.parametrize("rule", LITERAL)
@pytest.mark.parametrize("count", [4, 5, 10])
def test_four_answers_and_more_are_enough_for_the_rule(rule, count):
    evaluation = (
        Vqa(rule=rule).scorer(samples := [question(["red"] * count)]).score(samples, ["red"])
    )
    assert (evaluation.primary, evaluation.score.value) == ("vqa/accuracy", 100)


def test_a_set_of_both_is_scored_under_a_name_of_its_own_in_its_parts_too(caplog):
    samples = [
        question(["red"] * 10, 0),
        question(["red"], 1),
        question(["red"] * 2 + ["blue"] * 8, 2),
    ]
    vqa = Vqa()
    with caplog.at_level(logging.WARNING):
        vqa.check_samples(samples, samples)
    assert "1 of 3 questions have fewer than 4 answers" in caplog.text
    metrics = vqa.scorer(samples).score(samples, ["red"] * 3).metrics
    assert {name: (round(m.value, 6), m.n) for name, m in metrics.items()} == {
        "vqa/mixed": (round(260 / 3, 6), 3),
        "vqa/accuracy": (80, 2),
        "vqa/exact_match": (100, 1),
        "vqa/mixed_other": (round(260 / 3, 6), 3),
    }
    assert vqa.scorer(samples).score(samples[:1], ["red"]).primary == "vqa/mixed"


@pytest.mark.parametrize("answers", [(), ("",) * 10, (" ", "\n")])
def test_questions_without_an_answer_are_refused(answers):
    samples = [question(["red"] * 10, 0), question(answers, 7)]
    for evaluator in (Vqa(), Gqa()):
        with pytest.raises(InputError, match="1 of 2 questions have no answer.*'7'"):
            evaluator.check_samples(samples, samples)
        with pytest.raises(InputError, match="no samples to score"):
            evaluator.check_samples([], samples)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "...",
        "\x00",
        "\u202eseti\u202c",
        "\U0001f600",
        "\ud800",
        "word " * 9000,
        "1,0" * 3000,
        "|||",
    ],
)
@pytest.mark.parametrize("rule", LITERAL)
def test_any_answer_gets_a_score(rule, answer):
    evaluation = (
        Vqa(rule=rule)
        .scorer(samples := [question(["red"] * 9 + ["blue"])])
        .score(samples, [answer])
    )
    assert evaluation.score.value == 0


def test_every_word_of_the_official_table_and_no_other_gets_its_apostrophe():
    assert len(CONTRACTIONS) == 120
    bare = {word.replace("'", "") for word in CONTRACTIONS.values()}
    for word in {*CONTRACTIONS, *CONTRACTIONS.values(), *bare, "shed", "id", "ill", "were"}:
        expected = literal_words(word)
        assert soft_accuracy(word, [expected] * 10) == 1
        assert expected == word or soft_accuracy(word, [word] * 10) == 0


@given(st.lists(st.sampled_from(["red", "blue"]), min_size=10, max_size=10))
def test_accuracy_of_plain_words_equals_the_literal_rule(annotators):
    assert soft_accuracy("red", annotators) == pytest.approx(literal_accuracy("red", annotators))


@pytest.mark.parametrize(
    ("matches", "expected"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)]
)
def test_matches_score_as_the_rule_defines(matches, expected):
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
        QuestionSample(str(k), str(k), (FileImage(Path("x.jpg")),), "?", ("yes",) * 10, kind)
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


def test_answer_types_with_any_characters_are_counted_under_names_that_can_be_logged():
    samples = [
        QuestionSample(str(k), str(k), (FileImage(Path("x.jpg")),), "?", ("yes",) * 10, kind)
        for k, kind in enumerate(["other (x)", "other [x]", "Größe/%"])
    ]
    metrics = score_answers(samples, ["yes", "no", "yes"]).metrics
    assert {name: (metric.value, metric.n) for name, metric in metrics.items()} == {
        "vqa/accuracy": (pytest.approx(200 / 3), 3),
        "vqa/accuracy_other__x_": (50, 2),
        "vqa/accuracy_Gr__e__": (100, 1),
    }
