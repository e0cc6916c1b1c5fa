"""Prompts by a checkpoint's chat template: the processor's, else the tokenizer's."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import partial
from typing import Any

from PIL import Image

from mmq.contracts.vlm import InputOptions
from mmq.errors import InputError

log = logging.getLogger(__name__)
Render = Callable[[list[dict[str, Any]], bool], str]  # (messages, whether an answer follows)
TODAY = date(2025, 1, 1)  # what templates read as today's date, unless --template date=...
CLOCK = "strftime_now"  # the function that templates read it with
DIRECTIVES = "aAbBcCdDeFgGhHIjklmMnprRsStTuUVwWxXyYzZ"  # of dates' formats, after a %
FLAGS = ("", "-", "_", "0", "^", "#")  # glibc's, before a directive: %-d has no leading zero
PERCENT = "@"  # takes the place of the second % in %%
# transformers drops the line break after a block, so a template still starts on a new line
MACRO = (
    "{%% macro %(clock)s(format) %%}{%% set texts = %(texts)r %%}"
    "{%% for part in format.replace('%%%%', '%%%(percent)s').split('%%') %%}"
    "{%% if loop.first %%}{{ part }}"
    "{%% elif part[:1] in texts %%}{{ texts[part[:1]] }}{{ part[1:] }}"
    "{%% elif part[:2] in texts %%}{{ texts[part[:2]] }}{{ part[2:] }}"
    "{%% else %%}%%{{ part }}{%% endif %%}{%% endfor %%}{%% endmacro %%}"
)
PROBE = "mmqprobe"  # a text that no template contains
# variables that transformers sets
SET = {
    "messages", "add_generation_prompt", "tools", "documents", "raise_exception", "strftime_now",
    "bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token",
    "additional_special_tokens", "namespace", "range", "dict", "lipsum", "cycler", "joiner",
}  # fmt: skip


def render_chat(
    processor: Any, prompt: str, images: int, options: InputOptions, answer: str | None = None
) -> str | None:
    """A prompt after its pictures by the chat template; None if the checkpoint has none.

    answer: render the conversation with this answer, as in training. InputError for options that
    the template does not read.
    """
    owner = _owner(processor)
    if owner is None:
        if options.template or options.system_prompt:
            raise InputError(
                "template, system_prompt: this checkpoint has no chat template to apply them to; "
                "remove the options, or write the whole prompt with --prompt"
            )
        return None
    template = on_date(template_text(processor), options)
    render = partial(_apply, owner, template, template_variables(template, options))
    as_parts = owner is processor or _reads_parts(render)
    content: Any = [{"type": "image"}] * images + [{"type": "text", "text": prompt}]
    system: Any = [{"type": "text", "text": options.system_prompt}]
    if not as_parts:
        marks = "" if adds_image_tokens(processor) else image_mark(processor) * images
        content, system = f"{marks}\n{prompt}" if marks else prompt, options.system_prompt
    messages = [{"role": "user", "content": content}]
    if options.system_prompt:
        messages.insert(0, {"role": "system", "content": system})
    if answer is not None:
        reply: Any = [{"type": "text", "text": answer}] if as_parts else answer
        messages.append({"role": "assistant", "content": reply})
    rendered = render(messages, answer is None)
    if options.system_prompt and options.system_prompt not in rendered:
        raise InputError(
            "system_prompt: the checkpoint's chat template drops system messages; put the "
            "text into --prompt instead"
        )
    return rendered


def answer_lead(processor: Any, options: InputOptions) -> str:
    """The text between a rendered prompt and its answer: " " unless a template differs."""
    plain = render_chat(processor, PROBE, 1, options)
    if plain is None:
        return " "
    try:
        complete = render_chat(processor, PROBE, 1, options, f"{PROBE}answer") or ""
    except Exception:  # templates raise any exception; some refuse such a conversation
        log.debug("The chat template renders no answers", exc_info=True)
        return ""
    before, separator, _ = complete.rpartition(f"{PROBE}answer")
    return before[len(plain) :] if separator and before.startswith(plain) else ""


def template_text(processor: Any) -> str:
    """The source of the template that prompts are rendered with; "" if there is none."""
    owner = _owner(processor)
    template = getattr(owner, "chat_template", None) or ""
    return str(template.get("default", "")) if isinstance(template, Mapping) else str(template)


def template_date(processor: Any, options: InputOptions) -> str:
    """The date that the template reads as today's, "" if it reads none."""
    if CLOCK not in template_text(processor):
        return ""
    return str(options.template.get("date", TODAY))


def on_date(template: str, options: InputOptions) -> str:
    """A template that reads a fixed date instead of the clock.

    transformers passes templates plain data alone, so a macro in front of the template takes the
    name of the function that reads the clock. Its format may be a variable.
    """
    value = options.template.get("date", TODAY)
    try:
        today = value if isinstance(value, date) else date.fromisoformat(str(value))
    except ValueError as error:
        raise InputError(f"template: date: {value!r} is not a date; write e.g. {TODAY}") from error
    if CLOCK not in template:
        return template
    directives = [f"{flag}{letter}" for flag in FLAGS for letter in DIRECTIVES]
    texts = {directive: today.strftime(f"%{directive}") for directive in directives}
    texts[PERCENT] = "%"
    return f"{MACRO % {'clock': CLOCK, 'percent': PERCENT, 'texts': texts}}\n{template}"


def template_variables(template: str, options: InputOptions) -> dict[str, Any]:
    """The template's variables with their values; InputError for one that it does not read."""
    readable = variables_in(template)
    for name in options.template:
        if readable is not None and name not in readable | {"date"}:
            names = ", ".join(sorted(readable)) or "none"
            raise InputError(
                f"template: the checkpoint's chat template does not read {name!r}; it reads: "
                f"{names}; `date` sets the date that it may read"
            )
    return {
        name: v for name, v in options.template.items() if readable is None or name in readable
    }


def variables_in(template: str) -> set[str] | None:
    """The variables that a user can set; None if the template cannot be parsed here."""
    from jinja2 import Environment, TemplateError, meta

    plain = re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", template)  # transformers' own tag
    environment = Environment(extensions=["jinja2.ext.loopcontrols"])
    try:
        return set(meta.find_undeclared_variables(environment.parse(plain))) - SET
    except TemplateError:
        return None


def parse_template(text: str) -> dict[str, Any]:
    r"""The values of `--template NAME=VALUE,NAME=VALUE`; a comma inside a value is written `\,`.

    >>> parse_template("enable_thinking=false,effort=low,budget=64")
    {'enable_thinking': False, 'effort': 'low', 'budget': 64}
    >>> parse_template(r"persona=calm\, brief")
    {'persona': 'calm, brief'}
    """
    values: dict[str, Any] = {}
    for item in filter(None, re.split(r"(?<!\\),", text)):
        name, equals, value = (p.strip() for p in item.replace(r"\,", ",").partition("="))
        if not equals or not name.isidentifier():
            raise InputError(
                f"template: {item!r} is not NAME=VALUE; write e.g. enable_thinking=false, and \\, "
                f"for a comma in a value"
            )
        if name in values:
            raise InputError(f"template: {name} is given twice; give it once")
        words = {"true": True, "false": False, "none": None}
        number = int(value) if re.fullmatch(r"-?\d+", value) else value
        values[name] = words.get(value.lower(), number)
    return values


def special_tokens(tokenizer: Any, texts: Sequence[str]) -> dict[str, bool]:
    """The argument that keeps a tokenizer from adding a first token that a template wrote."""
    first = tokenizer.bos_token
    return {"add_special_tokens": False} if first and texts[0].startswith(first) else {}


def image_mark(processor: Any) -> str:
    """The text that stands for a picture in a prompt, "" if there is none."""
    return str(getattr(processor, "image_token", None) or "")


def adds_image_tokens(processor: Any) -> bool:
    """Whether the processor adds a picture's tokens to those that the text marks."""
    unmarked = _length(processor, "a")
    if unmarked <= len(processor.tokenizer("a")["input_ids"]) + 1:
        return False
    mark = image_mark(processor)
    return not mark or _length(processor, f"{mark}a") != unmarked


def _length(processor: Any, text: str) -> int:
    """Tokens of a text with one picture; 0 if the processor rejects them."""
    blank = Image.new("RGB", (64, 64))
    try:
        inputs = processor(images=[[blank]], text=[text], return_tensors="pt")
    except Exception:  # processors raise almost anything for a picture without its mark
        return 0
    return int(inputs["input_ids"].shape[-1]) if "input_ids" in inputs else 0


def _owner(processor: Any) -> Any:
    """The processor or its tokenizer, whichever has a chat template; the processor first."""
    for owner in (processor, getattr(processor, "tokenizer", None)):
        if getattr(owner, "chat_template", None):
            return owner
    return None


def _apply(
    owner: Any,
    template: str,
    variables: Mapping[str, Any],
    messages: list[dict[str, Any]],
    answered: bool,
) -> str:
    rendered: str = owner.apply_chat_template(
        messages,
        chat_template=template,
        add_generation_prompt=answered,
        tokenize=False,
        **variables,
    )
    return rendered


def _reads_parts(render: Render) -> bool:
    """Whether a tokenizer's template reads a message as a list of pictures and texts."""
    text = [{"type": "text", "text": PROBE}]
    try:
        plain = render([{"role": "user", "content": text}], True)
        pictured = render([{"role": "user", "content": [{"type": "image"}, *text]}], True)
    except Exception:  # a template for texts fails on a list, each in its own way
        return False
    return PROBE in plain and "'type'" not in plain and plain != pictured
