"""Stage 1: the ViT and the Q-Former learn to see, under probes that are dropped."""

import io

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import nn
from tqdm import tqdm
from transformers import Blip2ForConditionalGeneration

from mmq_plugins.embedded import scenes
from mmq_plugins.embedded.steps import (
    Checkpoint,
    MetricSink,
    TrainConfig,
    batch_of_step,
    learning_rate,
    make_optimizer,
    prefixed,
    take_step,
)


def render_pixels(indices: list[int], split: scenes.Split) -> np.ndarray:
    """Pictures as they come back from JPEG, uint8 (n, 64, 64, 3)."""
    pictures = np.empty((len(indices), scenes.IMAGE_SIZE, scenes.IMAGE_SIZE, 3), dtype=np.uint8)
    for k, index in enumerate(tqdm(indices, desc=f"render {split} scenes", unit="scene")):
        encoded = scenes.encode_jpeg(scenes.render(scenes.make_scene(index, split)))
        pictures[k] = np.asarray(Image.open(io.BytesIO(encoded)))
    return pictures


def _normalize(pixels: np.ndarray) -> torch.Tensor:
    """uint8 (n, h, w, 3) -> float (n, 3, h, w), as the processor does it."""
    return ((torch.from_numpy(pixels).float() / 255 - 0.5) / 0.25).permute(0, 3, 1, 2).contiguous()


def _augment(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    n = len(pixels)
    gain = 1 + 0.06 * torch.randn(n, 1, 1, 1, generator=generator)
    return pixels * gain + 0.06 * torch.randn(n, 3, 1, 1, generator=generator)


class Probe(nn.Module):
    """Linear heads that name shape, colour and size of a cell, and the background."""

    CLASSES = (len(scenes.SHAPES) + 1, len(scenes.COLORS) + 1, len(scenes.SIZES) + 1)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, sum(self.CLASSES) + len(scenes.BACKGROUNDS))

    def forward(
        self, features: torch.Tensor, cells: torch.Tensor, background: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss, and the share of cells named right; features (n, 16, width), cells (n, 16, 3)."""
        *parts, ground = self.head(self.norm(features)).split(
            [*self.CLASSES, len(scenes.BACKGROUNDS)], dim=-1
        )
        loss = F.cross_entropy(ground.flatten(0, 1), background.repeat_interleave(ground.shape[1]))
        right = torch.ones(cells.shape[:2], dtype=torch.bool)
        for k, logits in enumerate(parts):
            loss = loss + F.cross_entropy(logits.flatten(0, 1), cells[..., k].flatten())
            right &= logits.argmax(-1) == cells[..., k]
        return loss, right.float().mean()


def _see(
    model: Blip2ForConditionalGeneration, pixels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """ViT features averaged over each cell (n, 16, width), and Q-Former outputs (n, 16, width)."""
    vision = model.vision_model(pixel_values=pixels).last_hidden_state
    queries = model.qformer(
        query_embeds=model.query_tokens.expand(len(pixels), -1, -1),
        encoder_hidden_states=vision,
    ).last_hidden_state
    grid, n = scenes.GRID, len(pixels)
    cells = vision[:, 1:].reshape(n, grid, 2, grid, 2, -1).mean((2, 4)).reshape(n, grid * grid, -1)
    return cells, queries


def train_vision(
    model: Blip2ForConditionalGeneration,
    pixels: np.ndarray,
    config: TrainConfig,
    checkpoint: Checkpoint,
    sink: MetricSink,
) -> None:
    """Stage 1: ViT and Q-Former learn to name every cell."""
    torch.manual_seed(config.seed)
    probes = nn.ModuleList([Probe(model.config.vision_config.hidden_size), Probe(128)])
    trained = [model.vision_model, model.qformer, probes]
    optimizer = make_optimizer(trained, config)
    optimizer.add_param_group({"params": [model.query_tokens], "weight_decay": 0.0})
    scene_list = [scenes.make_scene(i) for i in range(config.images)]
    cells = torch.from_numpy(np.stack([scenes.cell_labels(s) for s in scene_list]))
    names = list(scenes.BACKGROUNDS)
    grounds = torch.tensor([names.index(s.background) for s in scene_list])
    start = 0
    if state := checkpoint.load("vision"):
        model.load_state_dict(state["model"])
        probes.load_state_dict(state["probes"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    generator = torch.Generator()
    bar = tqdm(range(start, config.vision_steps), desc="train vision", initial=start)
    for step in bar:
        chosen = batch_of_step(config, config.vision_batch, step)
        generator.manual_seed(config.seed * 1_000_003 + step)
        batch = _augment(_normalize(pixels[chosen]), generator)
        with torch.autocast("cpu", torch.bfloat16):
            seen = _see(model, batch)
            results = [
                probe(features, cells[chosen], grounds[chosen])
                for probe, features in zip(probes, seen, strict=True)
            ]
        loss = results[0][0] + results[1][0]
        take_step(optimizer, loss, learning_rate(config.vision_lr, step, config.vision_steps))
        if (step + 1) % 20 == 0:
            accuracy = {"vit": results[0][1].item(), "qformer": results[1][1].item()}
            sink({"vision/loss": loss.item()} | prefixed("vision/cells_", accuracy), step + 1)
            bar.set_postfix(loss=f"{loss.item():.3f}", cells=f"{accuracy['qformer']:.3f}")
        if (step + 1) % config.checkpoint_every == 0:
            checkpoint.save(
                "vision",
                step + 1,
                model=model.state_dict(),
                probes=probes.state_dict(),
                optimizer=optimizer.state_dict(),
            )


@torch.no_grad()
def encode_images(model: Blip2ForConditionalGeneration, pixels: np.ndarray) -> torch.Tensor:
    """Q-Former outputs of all pictures, (n, 16, width) in bfloat16."""
    parts = []
    for start in tqdm(range(0, len(pixels), 256), desc="encode images", unit="batch"):
        with torch.autocast("cpu", torch.bfloat16):
            parts.append(_see(model, _normalize(pixels[start : start + 256]))[1].bfloat16())
    return torch.cat(parts)
