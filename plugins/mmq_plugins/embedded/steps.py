"""Shared by all training stages: settings, schedule, optimizer, and the saved state."""

import io
import logging
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mmq.errors import InputError
from mmq.system import sealed
from mmq.system.atomic import UNFINISHED, atomic_write

log = logging.getLogger(__name__)
MetricSink = Callable[[dict[str, float], int], None]


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Training settings; the defaults are those of the embedded BLIP-2."""

    seed: int = 0
    images: int = 60_000
    vision_steps: int = 1_600
    vision_batch: int = 64
    vision_lr: float = 1e-3
    language_steps: int = 6_000  # language model, or retrieval Q-Former
    language_batch: int = 32
    language_lr: float = 1e-3
    relation_steps: int = 2_000  # last stage, which adds relational questions
    relation_lr: float = 5e-4
    weight_decay: float = 0.05
    probe_images: int = 256  # held-out scenes for the learning curves
    checkpoint_every: int = 250


def learning_rate(peak: float, step: int, total: int, warmup: int = 100) -> float:
    """Linear warm-up, then cosine down to 2% of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


def make_optimizer(modules: list[nn.Module], config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over all trainable parameters, with weight decay on matrices only."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    unique = list(dict.fromkeys(parameters))
    return torch.optim.AdamW(
        [
            {"params": [p for p in unique if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in unique if p.ndim < 2], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
        eps=1e-6,
    )


def take_step(optimizer: torch.optim.Optimizer, loss: torch.Tensor, lr: float) -> None:
    """One clipped optimizer step at a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


class Checkpoint:
    """The training state on disk, from which an interrupted training resumes."""

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        self.path = folder / "training.pt"
        self.config = config

    def load(self, stage: str) -> dict[str, Any] | None:
        """The saved state of a stage, or None; InputError if its settings differ."""
        try:
            data = sealed.unseal_bytes(sealed.read_bytes(self.path), self.path.name)
        except FileNotFoundError:
            return None
        except sealed.Unusable as problem:
            log.warning("%s is damaged (%s); training starts again", self.path, problem)
            return None
        state: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True)
        if state["config"] != asdict(self.config):
            raise InputError(
                f"output: {self.path} is from a training with other settings; choose another "
                f"--output, or remove the file to start again"
            )
        return state if state["stage"] == stage else None

    def save(self, stage: str, step: int, **tensors: Any) -> None:
        """Replace the saved state atomically."""
        state = {"stage": stage, "step": step, "config": asdict(self.config), **tensors}
        torch.save(state, written := io.BytesIO())
        with atomic_write(self.path) as aside:
            aside.write_bytes(sealed.seal_bytes(written.getvalue(), self.path.name))
        with suppress(OSError):  # the folder becomes a checkpoint, without other files
            (self.path.parent / UNFINISHED).rmdir()


def batch_of_step(config: TrainConfig, size: int, step: int) -> list[int]:
    """The images of a step, shuffled in each epoch; a function of config and step."""
    per_epoch = config.images // size
    epoch, k = divmod(step, per_epoch)
    order = np.random.RandomState(config.seed * 1000 + epoch).permutation(config.images)
    return [int(i) for i in order[k * size : (k + 1) * size]]


def prefixed(prefix: str, values: dict[str, float]) -> dict[str, float]:
    """The same values with prefixed names."""
    return {prefix + key: value for key, value in values.items()}
