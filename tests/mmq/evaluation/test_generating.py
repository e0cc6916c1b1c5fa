"""The options of evaluators that read generated text, and where the question goes."""

from pathlib import Path

import pytest
from mmq_plugins.evaluators.captioning import Captioning
from mmq_plugins.evaluators.vqa import Vqa

from mmq.contracts import CaptionSample, FileImage, QuestionSample

SAMPLE = QuestionSample(
    "1", "1", (FileImage(Path("x.jpg")),), "a {q} {0} {}?", ("yes",) * 10, "other"
)


@pytest.mark.parametrize("prompt", ["{q}_{}", "{{}} Short answer:", "}{}{0}", "{}"])
def test_a_question_goes_where_the_braces_are_whatever_else_the_prompt_holds(prompt, monkeypatch):
    vqa, asked = Vqa(prompt=prompt), []
    monkeypatch.setattr(vqa, "settings", lambda model: vqa)
    monkeypatch.setattr(
        vqa, "ask", lambda model, samples, texts, *rest: asked.extend(texts) or texts
    )
    vqa.evaluate(None, [SAMPLE], lambda batches, text: batches)
    before, after = prompt.split("{}")
    assert asked == [before + SAMPLE.question + after] == [vqa.calibration_texts([SAMPLE])[0][0]]


def test_a_caption_prompt_has_no_place_for_a_question():
    texts = Captioning(prompt="a {} of").calibration_texts(
        [CaptionSample("1", "1", (FileImage(Path("x.jpg")),), ("a cat",))]
    )
    assert texts == [("a {} of", "a cat")]


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
