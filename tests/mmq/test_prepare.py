"""A user's options for a model's inputs are part of the eval spec."""

import json
import logging
from dataclasses import replace

import pytest
from tiny_vlms import build, save_vlm

from mmq.config import EvalOptions
from mmq.errors import InputError
from mmq.models.skeleton import _report_fallback, family_of
from mmq.models.transformers_family import load_processor
from mmq.prepare import prepare

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {% for part in m['content'] %}"
    "{{ '<image>' if part.type == 'image' else part.text }}{% endfor %}\n{% endfor %}"
    "{{ strftime_now('%Y') }}{% if not enable_thinking %}<think></think>{% endif %}"
)


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """An Idefics3 whose template reads a variable and the clock, and whose settings matter."""
    folder = tmp_path_factory.mktemp("prepared")
    save_vlm("idefics3", folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    settings = {"repetition_penalty": 1.05, "do_sample": True, "temperature": 0.1}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    return EvalOptions(model=str(folder), limit="2")


def spec(options, **plugin_options):
    return prepare(options, plugin_options, lambda parts: []).eval_spec


def test_options_of_the_prompt_are_recorded_and_change_the_study(options):
    plain = spec(options)
    assert plain.tokenization == {"padding_side": "left", "template_date": "2025-01-01"}
    assert plain.rendered_prompt.endswith("2025<think></think>")
    thinking = spec(replace(options, template="enable_thinking=true"))
    assert thinking.tokenization["template"] == {"enable_thinking": True}
    assert thinking.rendered_prompt.endswith("2025")
    system = spec(replace(options, system_prompt="Be brief."))
    assert system.rendered_prompt.startswith("system: Be brief.user: <image>")
    limited = spec(options, **{"max-batch-tokens": "200"})
    assert limited.evaluator_options["max_batch_tokens"] == 200
    assert "max_batch_tokens" not in plain.evaluator_options
    assert len({each.key for each in (plain, thinking, system, limited)}) == 4


def test_the_checkpoints_own_decoding_settings_are_logged_and_do_not_rename_a_study(options):
    plain = spec(options)
    assert plain.generation_config == {"repetition_penalty": 1.05}
    assert replace(plain, generation_config={}).key == plain.key


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"template": "thinking=false"}, "does not read 'thinking'; it reads: enable_thinking"),
        ({"max_pixels": 10_000}, "max_pixels: .* has no pixel limits"),
    ],
)
def test_options_that_the_checkpoint_ignores_are_refused_before_it_is_loaded(
    options, changes, message
):
    with pytest.raises(InputError, match=message):
        spec(replace(options, **changes))


def test_a_processor_is_read_once_per_command(options, monkeypatch):
    from mmq_plugins.models import generic

    reads = []

    def counted(*arguments):
        reads.append(arguments)
        return load_processor(*arguments)

    monkeypatch.setattr(generic, "load_processor", counted)
    prepared = prepare(options, {}, lambda parts: [])
    with prepared.task:
        assert prepared.load().processor is prepared.processor
    assert len(reads) == 1


@pytest.mark.parametrize(("name", "reason"), [("blip2_t5", "is a t5"), ("llava_siglip", "")])
def test_models_that_a_dedicated_family_cannot_load_go_to_the_general_one_with_a_note(
    name, reason, caplog
):
    _report_fallback.cache_clear()
    with caplog.at_level(logging.INFO):
        family = family_of(build(name)[0].config)
    assert (type(family).__name__ == "Generic") == bool(reason)
    assert reason in caplog.text
