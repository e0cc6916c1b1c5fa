"""Prompts: those of the checkpoint's own chat template, with a user's options."""

import copy
import logging
from datetime import date
from types import SimpleNamespace

import pytest
import torch
from mmq_plugins.models.generic_inputs import processed
from PIL import Image
from tiny_vlms import names, tiny_vlm
from tokenizers.processors import TemplateProcessing

from mmq.contracts import InputOptions
from mmq.errors import InputError
from mmq.models.chat_template import answer_lead, parse_template, render_chat, template_date

PLAIN = InputOptions()
STRINGS = (
    "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] + eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
THINKING = (
    "{% for m in messages %}{{ m['role'] }}: {% for part in m['content'] %}"
    "{{ '<image>' if part.type == 'image' else part.text }}{% endfor %}\n{% endfor %}"
    "{{ strftime_now('%d %B %Y') }}"
    "{% if not enable_thinking %}<think></think>{% endif %}{{ effort or '' }}"
)


def with_template(template, on="processor"):
    """Idefics3's processor with another chat template, on it or on its tokenizer."""
    processor = copy.deepcopy(tiny_vlm("idefics3").processor)
    processor.chat_template = template if on == "processor" else None
    processor.tokenizer.chat_template = template if on == "tokenizer" else None
    return processor


def user(*parts):
    return [{"role": "user", "content": list(parts)}]


TEXT, IMAGE = {"type": "text", "text": "how many?"}, {"type": "image"}


@pytest.mark.parametrize("name", [n for n in names() if tiny_vlm(n).processor.chat_template])
def test_prompts_are_those_of_the_processors_own_template(name):
    model = tiny_vlm(name)
    for images in (1, 2):
        expected = model.processor.apply_chat_template(
            user(*[IMAGE] * images, TEXT), add_generation_prompt=True, tokenize=False
        )
        assert model.family.chat(model.processor, "how many?", images) == expected


@pytest.mark.parametrize("name", ["llava", "idefics3"])
def test_a_first_token_that_the_template_writes_is_not_added_again(name):
    model = tiny_vlm(name)
    processor = copy.deepcopy(model.processor)
    tokenizer = processor.tokenizer
    tokenizer.bos_token = "<s>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.convert_tokens_to_ids("<s>"))]
    )
    processor.chat_template = "{{ bos_token }}" + processor.chat_template
    picture = Image.new("RGB", (64, 48))
    parts = {"type": "image", "image": picture}, TEXT
    expected = processor.apply_chat_template(
        user(*parts), add_generation_prompt=True, tokenize=True, return_dict=True,
        return_tensors="pt",
    )["input_ids"]  # fmt: skip
    text = model.family.chat(processor, "how many?", 1)
    if name == "llava":
        ids, _ = model.family._ids(processor, [text], [picture])
    else:
        ids = processed(processor, [[picture]], [text])["input_ids"]
    assert torch.equal(ids, expected)


def test_a_template_that_stands_with_the_tokenizer_alone_is_used():
    parts = with_template(tiny_vlm("idefics3").processor.chat_template, on="tokenizer")
    expected = tiny_vlm("idefics3").family.chat(tiny_vlm("idefics3").processor, "how many?", 2)
    assert render_chat(parts, "how many?", 2, PLAIN) == expected


def test_a_template_for_texts_gets_the_picture_tokens_in_its_text():
    processor = with_template(STRINGS, on="tokenizer")
    rendered = render_chat(processor, "how many?", 2, PLAIN)
    assert rendered == "[user] <image><image>\nhow many?</s>\n[assistant] "


def test_a_checkpoint_without_a_template_runs_with_a_warning(caplog):
    processor = with_template(None)
    assert render_chat(processor, "how many?", 1, PLAIN) is None
    family = type(tiny_vlm("idefics3").family)("idefics3")
    with caplog.at_level(logging.WARNING):
        assert family.chat(processor, "how many?", 1) == "<image>how many?"
        family.chat(processor, "how many?", 1)
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "chat_template.jinja" in caplog.text


def test_variables_reach_the_template_and_unknown_ones_are_refused():
    processor = with_template(THINKING)
    options = InputOptions(template=parse_template("enable_thinking=true,effort=low"))
    assert render_chat(processor, "how many?", 1, options).endswith("low")
    assert "<think></think>" in render_chat(processor, "how many?", 1, PLAIN)
    with pytest.raises(InputError, match="'enable_think'; it reads: effort, enable_thinking"):
        render_chat(processor, "a", 1, InputOptions(template={"enable_think": False}))


def test_a_value_may_hold_an_escaped_comma():
    assert parse_template(r"persona=calm\, brief,effort=low") == {
        "persona": "calm, brief", "effort": "low",
    }  # fmt: skip


def test_the_template_date_is_fixed_by_default():
    processor = with_template(THINKING)
    assert "01 January 2025" in render_chat(processor, "a", 1, PLAIN)
    options = InputOptions(template={"date": "2026-03-31"})
    assert "31 March 2026" in render_chat(processor, "a", 1, options)
    assert template_date(processor, PLAIN) == "2025-01-01"
    assert template_date(with_template(STRINGS), PLAIN) == ""
    with pytest.raises(InputError, match="'tomorrow' is not a date"):
        render_chat(processor, "a", 1, InputOptions(template={"date": "tomorrow"}))


def test_a_date_in_any_format_is_fixed_and_the_rest_of_the_template_stays_the_same():
    calls = "{% set f = '%-d %b %y, %%d %j 5%' %}{{ strftime_now(f) }}{{ strftime_now(format) }}"
    template = "\n  {% if strftime_now is defined %}\n a\n  {% endif %}\n" + THINKING + calls
    processor = with_template(template)
    options = {"date": date.today().isoformat(), "format": "%A"}
    expected = processor.apply_chat_template(
        user(IMAGE, TEXT), add_generation_prompt=True, tokenize=False, format="%A"
    )
    assert render_chat(processor, "how many?", 1, InputOptions(template=options)) == expected
    options["date"] = "2026-03-05"
    rendered = render_chat(processor, "how many?", 1, InputOptions(template=options))
    assert rendered.endswith("5 Mar 26, %d 064 5%Thursday")


def test_a_system_prompt_comes_first_and_a_template_that_drops_it_is_refused():
    options = InputOptions(system_prompt="Be brief.")
    for processor in (with_template(THINKING), with_template(STRINGS, on="tokenizer")):
        rendered = render_chat(processor, "how many?", 1, options)
        assert rendered.index("Be brief.") < rendered.index("how many?")
    deaf = with_template(THINKING.replace("for m in messages", "for m in messages[-1:]"))
    with pytest.raises(InputError, match="drops system messages"):
        render_chat(deaf, "how many?", 1, options)


def test_options_that_no_template_reads_are_refused():
    with pytest.raises(InputError, match="has no chat template"):
        render_chat(SimpleNamespace(), "a", 1, InputOptions(system_prompt="Be brief."))


@pytest.mark.parametrize("text", ["thinking", "=false", "a=1,a=2", "a b=1"])
def test_a_malformed_template_option_is_refused(text):
    with pytest.raises(InputError, match="^template: "):
        parse_template(text)


def test_the_lead_of_an_answer_is_the_templates():
    spaced = (
        "{% for m in messages %}{{ m.role }}:{% for p in m.content %}"
        "{% if p.type == 'text' %} {{ p.text }}{% endif %}{% endfor %}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    assert answer_lead(with_template(spaced), PLAIN) == " "
    assert answer_lead(with_template(THINKING), PLAIN) == ""
    assert answer_lead(SimpleNamespace(), PLAIN) == " "
