"""The options of evaluators that read generated text, and where the question goes."""

from dataclasses import replace
from pathlib import Path

import pytest
from mmq_plugins.evaluators.captioning import Captioning
from mmq_plugins.evaluators.vqa import Vqa

from mmq.contracts import (
    GENERAL_PROTOCOLS,
    AnswerFormat,
    CaptionSample,
    FileImage,
    QuestionSample,
    VisionLanguageModel,
)
from mmq.evaluation.generating import generate_outputs

GENERAL = GENERAL_PROTOCOLS[AnswerFormat.SHORT_ANSWER]
SAMPLE = QuestionSample(
    "1", "1", (FileImage(Path("x.jpg")),), "a {q} {0} {}?", ("yes",) * 10, "other"
)


@pytest.mark.parametrize("prompt", ["{q}_{}", "{{}} Short answer:", "}{}{0}", "{}"])
def test_a_question_replaces_the_braces_whatever_else_the_prompt_contains(prompt):
    vqa = Vqa(prompt=prompt)
    protocol = vqa.protocol(GENERAL)
    (request,) = vqa.requests([SAMPLE], protocol)
    before, after = prompt.split("{}")
    assert request.prompt == before + SAMPLE.question + after
    assert vqa.calibration([SAMPLE], protocol) == [(request, "yes")]


def test_a_caption_prompt_has_no_place_for_a_question():
    captioning = Captioning(prompt="a {} of")
    sample = CaptionSample("1", "1", SAMPLE.images, ("a cat",))
    ((request, answer),) = captioning.calibration([sample], captioning.protocol(GENERAL))
    assert (request.prompt, answer) == ("a {} of", "a cat")


def test_options_that_are_not_set_follow_the_models_protocol():
    protocol = Vqa(num_beams=3, batch_size=2).protocol(GENERAL)
    assert protocol.template == GENERAL.template
    assert protocol.config == replace(GENERAL.config, num_beams=3, batch_size=2)
    options = Vqa(num_beams=3).effective_options(protocol)
    assert (options["num_beams"], options["max_new_tokens"], options["rule"]) == (3, 10, "lavis")


class Short(VisionLanguageModel):
    def generate(self, requests, config, progress):
        return ["yes"]


def test_a_model_that_leaves_requests_unanswered_is_an_error():
    with pytest.raises(ValueError, match=r"Short.generate: 1 outputs for 2 requests"):
        generate_outputs(Vqa(), Short(), [SAMPLE, SAMPLE], None)


class Skips(Vqa):
    def requests(self, samples, protocol):
        return super().requests(samples[1:], protocol)


def test_an_evaluator_that_skips_samples_is_an_error():
    with pytest.raises(ValueError, match=r"Skips.requests: not one request per sample"):
        generate_outputs(Skips(), Short(), [SAMPLE], None)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"min_new_tokens": -3}, "min_new_tokens: -3 is negative"),
        ({"length_penalty": float("nan")}, "length_penalty: nan is not a finite number"),
        ({"length_penalty": float("inf")}, "length_penalty: inf is not a finite number"),
    ],
)
def test_settings_that_no_decoding_can_follow_are_refused(option, message):
    with pytest.raises(ValueError, match=message):
        Vqa(**option)
    Vqa(min_new_tokens=0, length_penalty=-1.0)
