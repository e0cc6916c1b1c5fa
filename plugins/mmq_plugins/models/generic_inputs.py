"""Inputs of the general family's models: prompts with pictures, and answers right after them."""

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from mmq.models.chat_template import special_tokens

if TYPE_CHECKING:
    from PIL.Image import Image

Inputs = dict[str, Any]
NEEDS_PICTURE = "every call of it needs a picture"
QFORMER = "qformer_"  # inputs about the prompt as InstructBLIP's Q-Former reads it


def is_encoder_decoder(config: Any) -> bool:
    """Whether the answer is written by a decoder that reads the prompt by cross-attention."""
    configs = (config, getattr(config, "text_config", None))
    return any(bool(getattr(each, "is_encoder_decoder", False)) for each in configs)


def picture_reason(config: Any, model_class: type) -> str:
    """Why a model cannot read a text without a picture; "" if it can."""
    if is_encoder_decoder(config):
        return "its encoder reads the picture"
    inputs = inspect.signature(model_class.forward).parameters  # type: ignore[attr-defined]
    if "input_ids" not in inputs:
        return "its inputs are pictures alone"
    required = [n for n, p in inputs.items() if "pixel" in n and p.default is p.empty]
    return NEEDS_PICTURE if required else ""


def float_dtype(module: Any) -> torch.dtype:
    """The dtype that a model computes in: some keep a few parameters in float32."""
    table = module.get_input_embeddings()
    dtype: torch.dtype = getattr(getattr(table, "weight", None), "dtype", module.dtype)
    return dtype


def processed(processor: Any, images: Sequence[Sequence["Image"]], texts: Sequence[str]) -> Any:
    """Inputs of pictures and rendered prompts; of texts alone, by the tokenizer."""
    from transformers import BatchFeature

    special = special_tokens(processor.tokenizer, texts)
    settings = {"text": list(texts), "padding": True, "return_tensors": "pt", **special}
    lists = [list(of_text) for of_text in images]
    if not any(lists):  # some processors insist on pictures
        return BatchFeature(data=dict(processor.tokenizer(**settings)))
    try:
        return processor(images=lists, **settings)
    except ValueError:
        if any(len(of_text) != 1 for of_text in lists):
            raise
        # GOT-OCR's takes one picture per text, and no lists of them
        return processor(images=[of_text[0] for of_text in lists], **settings)


def prompt_inputs(
    module: Any, processor: Any, images: Sequence[Sequence["Image"]], texts: Sequence[str]
) -> Inputs:
    """A model's inputs for prompts to be answered."""
    batch = processed(processor, images, texts).to(module.device, float_dtype(module))
    inputs = dict(batch)
    inputs.pop("labels", None)
    forward = inspect.signature(module.forward).parameters
    if "input_ids" not in forward and "decoder_input_ids" in forward:  # Donut's
        for name in ("input_ids", "attention_mask"):
            if name in inputs and (name == "input_ids" or name not in forward):
                inputs[f"decoder_{name}"] = inputs.pop(name)
    for name in ("input_ids", "decoder_input_ids"):
        if name in inputs and not inputs[name].shape[-1]:  # an empty prompt
            del inputs[name]
            inputs.pop(name.replace("input_ids", "attention_mask"), None)
    decoder = "decoder_input_ids" if "decoder_input_ids" in inputs else "input_ids"
    reads_whole = is_encoder_decoder(module.config) and decoder == "input_ids"
    if decoder in inputs and not reads_whole and not _ends_itself(module):
        inputs = without_end(inputs, processor.tokenizer, texts, decoder)
    inputs = padded_on(processor.tokenizer.padding_side, inputs)
    inputs = padded_on("right", inputs, QFORMER)  # it counts positions from the left
    if not hasattr(module, "prepare_inputs_for_generation"):  # `generate` hands them all on
        return inputs
    accepted = set(forward) | set(
        inspect.signature(module.prepare_inputs_for_generation).parameters
    )
    return {name: value for name, value in inputs.items() if name in accepted}


def _ends_itself(module: Any) -> bool:
    """Whether `generate` cuts the prompt's end token itself, as BLIP's does."""
    return bool(module.config.model_type == "blip")


def without_end(
    inputs: Inputs, tokenizer: Any, texts: Sequence[str], decoder: str = "input_ids"
) -> Inputs:
    """Inputs whose prompts do not end with a token that the tokenizer put after them.

    Otherwise an answer would follow the end of the text, where training never put it.
    """
    ends = {tokenizer.eos_token_id, tokenizer.sep_token_id} - {None}
    ids = inputs[decoder]
    if not all(int(row[-1]) in ends for row in ids):
        return inputs
    if any(text.endswith(tokenizer.decode(ids[k, -1:])) for k, text in enumerate(texts)):
        return inputs
    length = ids.shape[1]
    return {
        name: value[:, :-1] if follows(name, value, length) else value
        for name, value in inputs.items()
    }


def padded_on(side: str, inputs: Inputs, prefix: str = "") -> Inputs:
    """Inputs whose padding is all on one side.

    Some processors put picture tokens before a padded text: its padding would stand between
    them, and shift the positions of the text. prefix: of the inputs' names.
    """
    ids, mask = inputs.get(f"{prefix}input_ids"), inputs.get(f"{prefix}attention_mask")
    if ids is None or mask is None or mask.shape != ids.shape:
        return inputs
    order = mask.argsort(dim=1, stable=True, descending=side == "right")
    if bool((order == torch.arange(ids.shape[1], device=ids.device)).all()):
        return inputs

    def sort(value: Tensor) -> Tensor:
        index = order.reshape(*order.shape, *[1] * (value.dim() - 2)).expand_as(value)
        return value.gather(1, index)

    sorted_ = {
        name: sort(value)
        for name, value in inputs.items()
        if name.startswith(prefix) and follows(name.removeprefix(prefix), value, ids.shape[1])
    }
    return inputs | sorted_


def follows(name: str, value: Any, length: int) -> bool:
    """Whether an input has one entry per token of the prompt."""
    return (
        isinstance(value, Tensor)
        and value.dim() >= 2
        and value.shape[1] == length
        and not name.startswith(QFORMER)
        and "pixel" not in name
    )


def answer_ids(tokenizer: Any, prompt: str, answer: str) -> list[int]:
    """The tokens of an answer as they follow those of its prompt, without special tokens."""
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    together = tokenizer(prompt + answer, add_special_tokens=False)["input_ids"]
    if together[: len(before)] == before:
        return list(together[len(before) :])
    return list(tokenizer(answer, add_special_tokens=False)["input_ids"])


def answered_inputs(
    module: Any, inputs: Inputs, answers: Sequence[Sequence[int]], answer_type: int
) -> Inputs:
    """Inputs for prompts with answers of the same length, where generation would write them."""
    ids = torch.tensor([list(answer) for answer in answers], device=module.device)
    ids = ids.reshape(len(answers), -1).long()
    if is_encoder_decoder(module.config):
        start = inputs.get("decoder_input_ids")
        if start is None:
            start = (
                torch.full_like(ids[:, :1], start_token(module))
                if ids.shape[1]
                else (torch.full((len(answers), 1), start_token(module), device=module.device))
            )
        decoder = torch.cat([start, ids], dim=1)
        extended = {k: v for k, v in inputs.items() if k != "decoder_attention_mask"}
        return extended | {"decoder_input_ids": decoder}
    length, more = inputs["input_ids"].shape[1], ids.shape[1]
    result = dict(inputs)
    for name, value in inputs.items():
        if name == "input_ids":
            result[name] = torch.cat([value, ids], dim=1)
        elif follows(name, value, length):
            result[name] = _longer(name, value, more, answer_type)
    return result


def _longer(name: str, value: Tensor, more: int, answer_type: int) -> Tensor:
    """An input with one entry per token, for `more` tokens of an answer."""
    if name == "cross_attention_mask":  # an answer sees the pictures that its prompt sees
        return torch.cat([value, value[:, -1:].expand(-1, more, *value.shape[2:])], dim=1)
    fill = 1 if name == "attention_mask" else answer_type if name == "token_type_ids" else 0
    padding = [0, 0] * (value.dim() - 2) + [0, more]
    return F.pad(value, padding, value=fill)


def prompt_length(inputs: Inputs, tokens: Tensor) -> int:
    """How many of the generated tokens (n, length) repeat the prompt."""
    ids = inputs.get("input_ids")
    if ids is not None and torch.equal(tokens[:, : ids.shape[1]], ids):
        return int(ids.shape[1])
    return 0


def start_token(module: Any) -> int:
    """The token that a decoder's text starts with."""
    configs = [module.generation_config, module.config]
    configs += [getattr(module.config, name, None) for name in ("text_config", "decoder")]
    for name in ("decoder_start_token_id", "bos_token_id"):
        for config in configs:
            if (token := getattr(config, name, None)) is not None:
                return int(token)
    return 0
