"""The time that a model in this process takes for an answer, from hooks on its modules."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import TYPE_CHECKING

import torch
from torch import nn

from mmq.contracts.timing import AnswerTiming, Engine
from mmq.contracts.vlm import GenerationConfig, Request, VisionLanguageModel

if TYPE_CHECKING:
    from mmq.models.loaded import LoadedModel


def transformers_engine() -> Engine:
    """Transformers and PyTorch in this process."""
    versions = f"{version('transformers')}, torch {version('torch')}"
    return Engine("transformers", versions, torch.get_num_threads(), os.getpid())


@dataclass(slots=True)
class _Clock:
    """Times at which modules started and ended. synchronize: waits for the device."""

    synchronize: Callable[[], None]
    vision_starts: list[float] = field(default_factory=list)
    vision_ends: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)

    def now(self) -> float:
        self.synchronize()
        return time.perf_counter()

    def marking(self, times: list[float]) -> Callable[..., None]:
        """A hook that appends the time."""
        return lambda *details: times.append(self.now())


def time_generation(
    model: "LoadedModel", request: Request, config: GenerationConfig
) -> AnswerTiming:
    """The time of a greedy answer of exactly `config.max_new_tokens` tokens.

    A token is generated when the output layer returns; the call before the first token's, if there
    is one, reads the prompt. The vision encoder's time is that of its blocks. The model's stage
    cache is not used. A model whose output layer is not called is timed by two answers.
    """
    exact = replace(config, num_beams=1, min_new_tokens=config.max_new_tokens)
    head = getattr(model.module, "get_output_embeddings", lambda: None)()
    if head is None:
        return VisionLanguageModel.time_answer(model, request, exact)
    clock = _Clock(torch.cuda.synchronize if model.device.startswith("cuda") else _nothing)
    with _clocked(model, head, clock), _uncached(model):
        started = clock.now()
        model.generate([request], exact, lambda items, description: items)
        seconds = clock.now() - started
    tokens = clock.tokens[-config.max_new_tokens :]
    if not tokens:  # an engine in place of the decoder does not call it
        return VisionLanguageModel.time_answer(model, request, exact)
    starts, ends = clock.vision_starts, clock.vision_ends
    complete = len(starts) == len(ends) > 0  # some models do not run their last block
    return AnswerTiming(
        seconds=seconds,
        tokens=len(tokens),
        first_token=tokens[0] - started,
        decoding=tokens[-1] - tokens[0],
        vision=sum(ends) - sum(starts) if complete else None,
    )


def _nothing() -> None:
    """Calls on the CPU return when they are done."""


@contextmanager
def _clocked(model: "LoadedModel", head: nn.Module, clock: _Clock) -> Iterator[None]:
    """The model with hooks on its vision blocks and its output layer."""
    hooks = [head.register_forward_hook(clock.marking(clock.tokens))]
    if blocks := vision_blocks(model):
        hooks += [
            blocks[0].register_forward_pre_hook(clock.marking(clock.vision_starts)),
            blocks[-1].register_forward_hook(clock.marking(clock.vision_ends)),
        ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _uncached(model: "LoadedModel") -> Iterator[None]:
    cache, model.stage_cache = model.stage_cache, None
    try:
        yield
    finally:
        model.stage_cache = cache


def vision_blocks(model: "LoadedModel") -> Sequence[nn.Module]:
    """The blocks of the model's first component, the vision encoder."""
    specs = model.family.component_specs(model.module)
    for path in specs[0].paths if specs else ():
        try:
            blocks = model.module.get_submodule(path)
        except AttributeError:
            continue
        if isinstance(blocks, nn.ModuleList):
            return list(blocks)
    return ()
