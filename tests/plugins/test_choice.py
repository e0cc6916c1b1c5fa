"""Multiple choice: every rule agrees with a naive transcription of the published one."""

import itertools
import random
import re
from dataclasses import replace

import pytest
from mmq_plugins.evaluators import choice_rules
from mmq_plugins.evaluators.choice import Choice, ChoiceScorer

from mmq.contracts import AnswerProtocol, BytesImage, ChoiceSample, GenerationConfig
from mmq.data.source import find_source
from mmq.errors import InputError
from mmq.evaluation.generating import generate_outputs
from mmq.testing import EvaluatorContract

OPTIONS = {"A": "a cat", "B": "a dog", "C": "3.5", "D": "Dogs and cats"}
OUTPUTS = [
    "", " ", "A", "b", "(B)", "B.", "B. a dog", "B) a dog", "(A) or (B)", "(B) not (A)", "A B",
    "Z", "A dog is what I can see here", "a cat", "A cat.", "The answer is C.",
    "The answer is (D)",
    "Option b", "option B is right", "the answer is a", "the answer is d, I think", "(c", "(",
    "I think that a dog is in it, not a cat", "I think that it must be the number 3.5",
    "A. a cat, because it has whiskers and a tail", "dogs and cats", "'B'", "B!?", "[B]", "{C}",
    "It is B or C", "Sorry, I can't help with images of people yet.",
    "Cannot determine the answer",
    "Failed to obtain answer via API B", "B A A A A A A", "the dog of B is A very good one indeed",
    "#A", "*B*", "A:B", "D D D", "answer: c", "Answer B", "Answer: BC", "E", "B" * 5,
]  # fmt: skip


class TestChoice(EvaluatorContract):
    def make(self):
        return Choice(num_beams=1)

    def samples(self):
        return tuple(
            ChoiceSample(
                s.id, s.image_id, s.images, s.question, ("B",), "", (), ("no", s.answers[0])
            )
            for s in find_source("vqa", "scenes").samples()[:16]
        )


class TestCircularChoice(TestChoice):
    def make(self):
        return Choice(num_beams=1, circular=True)


def official_mmmu(response, all_choices, index2ans):
    """MMMU-Benchmark/MMMU, eval/eval_utils.py, without the guess at the end."""
    for char in [",", ".", "!", "?", ";", ":", "'"]:
        response = response.strip(char)
    response = " " + response + " "
    index_ans, brackets, candidates = True, False, []
    for choice in all_choices:
        if f"({choice})" in response:
            candidates.append(choice)
            brackets = True
    if len(candidates) == 0:
        candidates = [choice for choice in all_choices if f" {choice} " in response]
    if len(candidates) == 0 and len(response.split()) > 5:
        for index, ans in index2ans.items():
            if ans.lower() in response.lower():
                candidates.append(index)
                index_ans = False
    if not candidates:
        return ""
    if len(candidates) == 1:
        return candidates[0]
    starts = []
    for can in candidates:
        if index_ans and brackets:
            starts.append(response.rfind(f"({can})"))
        elif index_ans:
            starts.append(response.rfind(f" {can} "))
        else:
            starts.append(response.lower().rfind(index2ans[can].lower()))
    return candidates[starts.index(max(starts))]


def official_mmbench(answer, choices):
    """open-compass/VLMEvalKit, vlmeval/utils/matching_util.py, can_infer."""

    def option():
        if "Failed to obtain answer via API" in answer:
            return False
        for refusal in choice_rules.REFUSALS:
            if refusal in answer:
                return "Z"
        text = answer
        for c in ".()[],:;!*#{}":
            text = text.replace(c, " ")
        splits = [x.strip() for x in text.split()]
        count = sum(c in splits for c in choices)
        if count == 1:
            for ch in choices:
                if ch in splits and splits.index(ch) > len(splits) - 5:
                    return ch
        elif count == 0 and sum(c in splits for c in {"Z", ""}) == 1:
            return "Z"
        return False

    def text():
        lower = answer.lower()
        if len(lower) > 2 * sum(len(str(v)) for v in choices.values()):
            return False
        matches = [k for k in choices if choices[k].lower() in lower]
        return matches[0] if len(matches) == 1 else False

    return option() or text() or ""


def official_mmstar(pred, gt):
    """MMStar, eval/vlmeval, exact_match."""
    answer = gt.lower().strip().replace("\n", " ")
    predict = pred.lower().strip().replace("\n", " ")
    try:
        return (
            answer == predict[0]
            or (predict[0] == "(" and answer == predict[1])
            or (predict[0:7] == "option " and answer == predict[7])
            or (predict[0:14] == "the answer is " and answer == predict[14])
        )
    except IndexError:
        return False


def official_open(gold, response):
    """MMMU-Benchmark/MMMU, eval/eval_utils.py, parse_open_response and eval_open."""

    def normalize(string):
        string = string.strip()
        try:
            return [round(float(string.replace(",", "")), 2)]
        except ValueError:
            string = string.lower()
            return [" " + string, string + " "] if len(string) == 1 else [string]

    def numbers(string):
        return (
            re.findall(r"-?\b\d{1,3}(?:,\d{3})+\b", string)
            + re.findall(r"-?\d+(?:\.\d+)?[eE][+-]?\d+", string)
            + re.findall(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])", string)
        )

    text = response.strip().strip(".").lower()
    parts = re.split(r"\.\s(?=[A-Z])|\n", text)
    keys = []
    marks = ["could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result "]
    for index, part in enumerate(parts):
        if index == len(parts) - 1:
            marks.extend(["="])
        shortest = None
        for mark in marks:
            if mark in part:
                tail = part.split(mark)[-1].strip()
                if not shortest or len(tail) < len(shortest):
                    shortest = tail
        if shortest and shortest.strip() not in [":", ",", ".", "!", "?", ";", ":", "'"]:
            keys.append(shortest)
    keys = keys or [text]
    predictions = [n for p in keys + [n for k in keys for n in numbers(k)] for n in normalize(p)]
    answers = [n for a in gold for n in normalize(a)]
    return any(
        any(isinstance(a, str) and a in p for a in answers) if isinstance(p, str) else p in answers
        for p in predictions
    )


def test_the_letter_rules_agree_with_the_published_ones_on_adversarial_outputs():
    rng = random.Random(0)
    words = [
        "A",
        "B",
        "C",
        "(A)",
        "(D)",
        "a",
        "cat",
        "dog",
        "is",
        "the",
        "answer",
        "3.5",
        "Z",
        ".",
    ]
    mixed = [" ".join(rng.choices(words, k=rng.randint(1, 9))) for _ in range(1500)]
    for output in OUTPUTS + mixed:
        assert choice_rules.mmmu(output, OPTIONS) == official_mmmu(output, [*OPTIONS], OPTIONS)
        assert choice_rules.mmbench(output, OPTIONS) == official_mmbench(output, OPTIONS), output
        for gold in OPTIONS:
            right = choice_rules.mmstar(output, OPTIONS) == gold
            assert right == official_mmstar(output, gold), output


def test_open_answers_agree_with_mmmus_script_on_adversarial_outputs():
    outputs = [
        "", ".", "24", "24.001", "x = 24", "The answer is 1,000.", "so it is 1e3", "It is a cat.",
        "result is :", "answer ", "b", "is b", "so b or c", "= 3", "3 = x", "final answer ",
        "The sum is -5. Thus 7", "1,00", "12,345.6", "could be so is 5%", "$24", "-.5", "NaN",
    ]  # fmt: skip
    for output, gold in itertools.product(
        outputs, (["24"], ["1000"], ["cat", "a cat"], ["b"], ["-5", "7"], [".5"], ["5%"], ["nan"])
    ):
        assert choice_rules.is_open_answer(output, gold) == official_open(gold, output), output


@pytest.mark.parametrize(
    ("output", "option"),
    [
        ("b", "B"), ("B: a dog", "B"), ("[b]", "B"), ("Answer: (C)", "C"), ("A dog.", "B"),
        ("the answer is d", "D"), ("3.5", "C"), ("it is 3.5 metres", "C"), ("E", ""), ("", ""),
        ("a cat or a dog", ""), ("answer", ""), ("Dogs", ""), ("A and B", ""), ("A, B", ""),
        ("(A) or (C)", ""), ("The answer is A and B.", ""), ("A, I think", "A"), ("C/D", ""),
        ("B, a dog", "B"), ("Option C, and that's it", "C"), ("答案是B", "B"), ("选（C）。", "C"),
        ("Ｂ", "B"), ("B、a dog", "B"), ("正确答案：D", "D"), ("A或B", ""),
        ("dogs and cats, not a dog", ""), ("B, A dog", "B"), ("B and A are right", ""),
        ("B, A", ""),
    ],
)  # fmt: skip
def test_mmqs_own_rule_reads_letters_and_option_texts(output, option):
    assert choice_rules.letter(output, OPTIONS) == option


@pytest.mark.parametrize(
    ("output", "option"),
    [
        ("It is a red car.", "B"), ("It is red.", "A"), ("a red car and a red one", ""),
        ("图中是一只猫。", "C"), ("熊猫", "D"), ("这是熊猫", "D"), ("狗", ""), ("Redcar", ""),
    ],
)  # fmt: skip
def test_an_option_inside_another_is_not_named_by_it(output, option):
    options = {"A": "red", "B": "red car", "C": "猫", "D": "熊猫"}
    assert choice_rules.letter(output, options) == option


IMAGES = (BytesImage("x", b""),)
SAMPLE = ChoiceSample("7", "7", IMAGES, "What?", ("C",), "", (), ("red", "green", "blue"))
PROTOCOL = AnswerProtocol("{}\nLetter:", GenerationConfig(max_new_tokens=5))


class Parrot:
    """Answers with the letter of blue, or always with the same letter."""

    def __init__(self, fixed=""):
        self.fixed = fixed

    def protocol(self, answer_format):
        return PROTOCOL

    def generate(self, requests, config, progress):
        lines = [request.prompt.split("\n") for request in requests]
        return [self.fixed or next(t[0] for t in texts if t.endswith("blue")) for texts in lines]


@pytest.mark.parametrize(("fixed", "circular", "plain"), [("", 100, 100), ("C", 0, 100 / 3)])
def test_circular_evaluation_asks_every_rotation_and_all_must_be_right(fixed, circular, plain):
    evaluator = Choice(circular=True)
    requests = evaluator.requests([SAMPLE], PROTOCOL)
    assert [r.prompt.split("\n")[1] for r in requests] == ["A. red", "A. green", "A. blue"]
    outputs = generate_outputs(evaluator, Parrot(fixed), [SAMPLE], lambda items, text: items)
    evaluation = evaluator.scorer([SAMPLE]).score([SAMPLE], outputs)
    assert evaluation.metrics["choice/circular_accuracy"].value == circular
    assert evaluation.metrics["choice/accuracy"].value == pytest.approx(plain)
    assert evaluation.predictions[0].expected == "C. blue"


def test_listed_options_are_not_repeated_and_cannot_be_rotated():
    listed = replace(SAMPLE, listed=True)
    (request,) = Choice().requests([listed], PROTOCOL)
    assert request.prompt == "What?\nLetter:"
    with pytest.raises(InputError, match="cannot be rotated"):
        Choice(circular=True).check_samples([listed], [listed])


def test_open_questions_are_asked_for_a_phrase_and_scored_as_mmmu_does():
    sample = replace(SAMPLE, options=(), answers=("24", "twenty-four"), rule="mmmu")
    (request,) = Choice().requests([sample], PROTOCOL)
    assert "word or phrase" in request.prompt
    assert ChoiceScorer("", False).values([sample], ["x = 24"]) == [100]


def test_samples_without_options_are_refused():
    with pytest.raises(InputError, match="not one of A, B, C"):
        Choice().check_samples([replace(SAMPLE, answers=("E",))], [SAMPLE])
