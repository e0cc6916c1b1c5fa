"""Generated tokens: where answers begin, their reasoning, and broken logits."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmq.contracts.vlm import GenerationConfig
from mmq.errors import InputError
from mmq.models.reasoning import TAGS, without_reasoning


class LogitsWatch:
    """A logits processor that changes nothing: it sees where an answer begins.

    start: tokens before the first generated one, -1 before any is. broken: whether a
    row's logits were NaN or infinite, (rows,).
    """

    def __init__(self) -> None:
        self.start = -1
        self.broken: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores (rows, tokens) of the next token, unchanged."""
        if self.start < 0:
            self.start = input_ids.shape[1]
        # -inf is how other processors forbid a token
        broken = (scores.isnan() | scores.isposinf()).any(-1)
        self.broken = broken if self.broken is None else self.broken | broken
        return scores

    def broken_answers(self, count: int) -> list[int]:
        """Positions of the answers, out of `count`, that had such logits in any beam."""
        if self.broken is None:
            return []
        return self.broken.reshape(count, -1).any(-1).nonzero().flatten().tolist()


def stop_strings(module: Any) -> tuple[str, ...]:
    """The texts that end an answer by a checkpoint's decoding settings."""
    texts = getattr(getattr(module, "generation_config", None), "stop_strings", None) or ()
    return (texts,) if isinstance(texts, str) else tuple(texts)


def decoding(
    config: GenerationConfig, watch: LogitsWatch, module: Any, tokenizer: Any
) -> dict[str, Any]:
    """Arguments of transformers' `generate`; the rest of its settings are the checkpoint's own.

    module: generates. tokenizer: finds its stop strings.
    """
    from transformers import LogitsProcessorList

    stops = {"tokenizer": tokenizer} if stop_strings(module) else {}
    return {
        **stops,
        "max_new_tokens": config.max_new_tokens,
        "min_new_tokens": config.min_new_tokens or None,
        "num_beams": config.num_beams,
        "length_penalty": config.length_penalty,
        "do_sample": False,
        "logits_processor": LogitsProcessorList([watch]),
    }


def decode_answers(
    tokenizer: Any,
    tokens: Tensor,
    start: int,
    prompts: Sequence[str],
    stops: Sequence[str] = (),
) -> tuple[list[str], int]:
    """The answers without their prompts and reasoning, and how many never ended their reasoning.

    tokens: (n, length) as `generate` returned them; start: where the answers begin. stops: texts
    that end an answer without being a part of it.
    """
    answers = tokens[:, start:]
    added = tokenizer.added_tokens_decoder.values()
    special = {token.content for token in added if token.special} | {*tokenizer.all_special_tokens}
    hidden = any(tag in special for tags in TAGS for tag in tags)
    texts = tokenizer.batch_decode(answers, skip_special_tokens=not hidden)
    result, unfinished = [], 0
    for text, prompt in zip(texts, prompts, strict=True):
        answer, ended = without_reasoning(text, prompt)
        for token in special if hidden else ():
            answer = answer.replace(token, "")
        for stop in stops:  # the last token may contain more than its beginning
            answer = answer.partition(stop)[0]
        result.append(answer.strip())
        unfinished += not ended
    return result, unfinished


class _FoundError(Exception):
    """Ends a forward as soon as an output is not finite."""


def first_broken_layer(module: nn.Module, run: Callable[[], object]) -> str:
    """The first module, in the order of their calls, whose output is not finite; "" if none is."""
    broken: list[str] = []

    def listen(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) and output else output
            is_float = isinstance(first, Tensor) and first.is_floating_point()
            if is_float and not bool(torch.isfinite(first).all()):
                broken.append(f"{name} ({type(module.get_submodule(name)).__name__})")
                raise _FoundError

        return hook

    handles = [m.register_forward_hook(listen(name)) for name, m in module.named_modules() if name]
    try:
        run()
    except _FoundError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return broken[0] if broken else ""


def check_logits(module: nn.Module, sample: str, run: Callable[[], object]) -> None:
    """InputError with the layer that made a sample's logits infinite or NaN."""
    layer = first_broken_layer(module, run) or "its output head"
    dtype = str(next(p.dtype for p in module.parameters() if p.is_floating_point()))
    wider = {"torch.float16": "bfloat16 or float32", "torch.bfloat16": "float32"}.get(dtype)
    advice = f"Give --dtype {wider}" if wider else "Use an undamaged copy of the checkpoint"
    raise InputError(
        f"model: the logits of sample {sample!r} are infinite or NaN in the unquantized model; "
        f"the first layer with such an output is {layer}, in {dtype.removeprefix('torch.')}. "
        f"{advice}"
    )
