"""Models without a chat template: their prompt formats, and the position of their answers."""

import pytest
import torch
import transformers
from mmq_plugins.embedded.scenes import make_scene, render
from mmq_plugins.models.generic_inputs import answer_ids, answered_inputs, prompt_inputs
from tiny_vlms import SINCE_5, names, tiny_vlm

from mmq.contracts import AnswerFormat
from mmq.data.calibration import Calibration
from mmq.errors import InputError
from mmq.models.chat_template import adds_image_tokens
from mmq.models.skeleton import family_of

PICTURE = render(make_scene(0))
NEW = pytest.mark.skipif(not SINCE_5, reason="new in transformers 5")


def inputs_of(model, text):
    return prompt_inputs(model.module, model.processor, [[PICTURE]], [text])


@pytest.mark.parametrize(
    ("name", "answer_format", "prompt"),
    [
        ("paligemma", AnswerFormat.SHORT_ANSWER, "<image>answer en how many?"),
        ("paligemma", AnswerFormat.CAPTION, "<image>caption en"),
        pytest.param("florence2", AnswerFormat.CAPTION, "<CAPTION>", marks=NEW),
        ("blip", AnswerFormat.CAPTION, ""),
        ("git", AnswerFormat.SHORT_ANSWER, "how many?"),
        ("instructblip_t5", AnswerFormat.SHORT_ANSWER, "Question: how many? Short answer:"),
        ("blip2_t5", AnswerFormat.SHORT_ANSWER, "Question: how many? Short answer:"),
        ("kosmos2", AnswerFormat.CAPTION, "An image of"),
    ],
)
def test_a_model_is_prompted_as_in_its_training(name, answer_format, prompt):
    model = tiny_vlm(name)
    text = model.protocol(answer_format).prompt("how many?")
    assert model.family.chat(model.processor, text, 1) == prompt


@pytest.mark.parametrize("name", ["instructblip_llama", "blip2_t5", "kosmos2"])
def test_picture_tokens_are_left_to_a_processor_that_adds_them(name):
    model = tiny_vlm(name)
    assert adds_image_tokens(model.processor)
    assert "<image>" not in model.family.chat(model.processor, "what?", 1)


def test_a_prompt_of_a_decoder_does_not_end_before_its_answer():
    model = tiny_vlm("git")
    assert model.processor.tokenizer("how many?")["input_ids"][-1] == 2
    assert int(inputs_of(model, "how many?")["input_ids"][0, -1]) != 2


def answered(name, text="how many?", answer="two"):
    model = tiny_vlm(name)
    rendered = model.family.chat(model.processor, text, 1)
    inputs = inputs_of(model, rendered)
    tokens = answer_ids(model.processor.tokenizer, rendered, f" {answer}")
    complete = answered_inputs(model.module, inputs, [tokens], model.family.words.answer_type)
    return model, inputs, complete, tokens


@pytest.mark.parametrize(
    "name", ["paligemma", "git", "llava_next", "mllama", "instructblip_llama"]
)
def test_an_answer_follows_the_prompt_that_generation_reads(name):
    model, inputs, complete, tokens = answered(name)
    ids, length = complete["input_ids"][0], inputs["input_ids"].shape[1]
    assert torch.equal(ids[:length], inputs["input_ids"][0])
    assert ids[length:].tolist() == tokens
    assert complete["attention_mask"].shape == complete["input_ids"].shape
    model.module(**complete)  # every input has its new length


def test_an_answer_of_paligemma_is_its_suffix():
    model, inputs, complete, tokens = answered("paligemma")
    trained = model.processor(
        images=[[PICTURE]], text=["<image>how many?"], suffix=[" two"], return_tensors="pt"
    )
    assert torch.equal(trained["input_ids"][:, :-1], complete["input_ids"])  # its end token
    if "token_type_ids" in complete:
        assert torch.equal(trained["token_type_ids"][:, :-1], complete["token_type_ids"])


@pytest.mark.parametrize(
    "name", [n for n in ("instructblip_t5", "blip2_t5", "florence2", "donut") if n in names()]
)
def test_an_encoder_decoder_reads_its_answer_in_its_decoder(name):
    model, inputs, complete, tokens = answered(name)
    assert complete["decoder_input_ids"][0, -len(tokens) :].tolist() == tokens
    if "input_ids" in inputs:
        assert torch.equal(complete["input_ids"], inputs["input_ids"])
    (forward,) = model.family.calibration_forwards(model, [[PICTURE]], ["how many?"], ["two"])
    choices = forward()
    assert len(choices) == len(tokens) + 1  # the answer's tokens, and the one after it


def test_calibration_batches_one_pair_at_a_time():
    from asking import requests_for

    model = tiny_vlm("instructblip_t5")
    (request,) = requests_for(model, [PICTURE], ["how many?"])
    assert len(list(Calibration(((request, "two"), (request, "a red star"))).forwards(model))) == 2


@pytest.mark.parametrize(
    ("name", "attribute", "words"),
    [
        ("Kosmos2_5Config", "one_by_one", "positions"),
        ("IdeficsConfig", "needs_pictures", "needs a picture"),
    ],
)
def test_what_is_special_about_a_kind_of_model_follows_from_its_configuration(
    name, attribute, words
):
    if not hasattr(transformers, name):
        pytest.skip(f"this version of transformers has no {name}")
    config = getattr(transformers, name)()
    config.architectures = None
    assert words in getattr(family_of(config), attribute)


def test_a_model_that_writes_no_text_is_refused_by_its_configuration():
    if not hasattr(transformers, "PI0Config"):
        pytest.skip("this version of transformers has no PI0")
    family = family_of(transformers.PI0Config(architectures=["PI0ForConditionalGeneration"]))
    with pytest.raises(InputError, match="none, they generate no text"):
        family.protocol(AnswerFormat.CAPTION)
