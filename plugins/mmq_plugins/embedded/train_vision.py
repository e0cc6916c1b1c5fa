"""Stage 1: trains the vision encoder (and the Q-Former) with linear probes, later discarded."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import nn
from tqdm import tqdm
from transformers import Blip2ForConditionalGeneration, LlavaForConditionalGeneration

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
    """Pictures of scenes after JPEG compression, uint8 (n, 64, 64, 3)."""
    return pixels_of([scenes.make_scene(index, split) for index in indices])


def pixels_of(pictured: list[scenes.Scene]) -> np.ndarray:
    """The same for existing scenes."""
    pictures = np.empty((len(pictured), scenes.IMAGE_SIZE, scenes.IMAGE_SIZE, 3), dtype=np.uint8)
    for k, scene in enumerate(tqdm(pictured, desc="render scenes", unit="scene")):
        encoded = scenes.encode_jpeg(scenes.render(scene))
        pictures[k] = np.asarray(Image.open(io.BytesIO(encoded)))
    return pictures


def normalize(pixels: np.ndarray) -> torch.Tensor:
    """uint8 (n, h, w, 3) -> float (n, 3, h, w), like the processor."""
    return ((torch.from_numpy(pixels).float() / 255 - 0.5) / 0.25).permute(0, 3, 1, 2).contiguous()


def _augment(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    n = len(pixels)
    gain = 1 + 0.06 * torch.randn(n, 1, 1, 1, generator=generator)
    return pixels * gain + 0.06 * torch.randn(n, 3, 1, 1, generator=generator)


class Probe(nn.Module):
    """Linear heads that predict shape, colour and size of a cell, and the background.

    With `places` they also predict the cell's row and column, so that a language model that reads
    patches learns positions sooner.
    """

    CLASSES = (len(scenes.SHAPES) + 1, len(scenes.COLORS) + 1, len(scenes.SIZES) + 1)

    def __init__(self, width: int, places: bool = False) -> None:
        super().__init__()
        self.parts = [*self.CLASSES, *((scenes.GRID, scenes.GRID) if places else ())]
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, sum(self.parts) + len(scenes.BACKGROUNDS))

    def forward(
        self, features: torch.Tensor, cells: torch.Tensor, background: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss, and the share of correctly predicted cells.

        features: (n, 16, width); cells: (n, 16, 3).
        """
        n, grid = len(cells), scenes.GRID
        if len(self.parts) > cells.shape[-1]:
            where = torch.arange(grid * grid)
            places = torch.stack([where // grid, where % grid], dim=1)
            cells = torch.cat([cells, places.expand(n, -1, -1)], dim=-1)
        *parts, ground = self.head(self.norm(features)).split(
            [*self.parts, len(scenes.BACKGROUNDS)], dim=-1
        )
        loss = F.cross_entropy(ground.flatten(0, 1), background.repeat_interleave(ground.shape[1]))
        right = torch.ones(cells.shape[:2], dtype=torch.bool)
        for k, logits in enumerate(parts):
            loss = loss + F.cross_entropy(logits.flatten(0, 1), cells[..., k].flatten())
            right &= logits.argmax(-1) == cells[..., k]
        return loss, right.float().mean()


@dataclass(frozen=True, slots=True)
class VisionSetup:
    """The part of a model that the first stage trains, and its features."""

    modules: list[nn.Module]
    probe_features: Callable[[torch.Tensor], dict[str, torch.Tensor]]  # (n, 16, width), per cell
    encode: Callable[[torch.Tensor], torch.Tensor]  # inputs of the second stage
    widths: dict[str, int]
    queries: list[nn.Parameter]
    places: bool = False


def _average_cells(patches: torch.Tensor) -> torch.Tensor:
    """Patches (n, 64, width) -> the means of each cell's four (n, 16, width)."""
    n, grid = len(patches), scenes.GRID
    return patches.reshape(n, grid, 2, grid, 2, -1).mean((2, 4)).reshape(n, grid * grid, -1)


def blip2_vision(model: Blip2ForConditionalGeneration) -> VisionSetup:
    """ViT and Q-Former; the Q-Former's outputs are the second stage's inputs."""

    def both(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        vision = model.vision_model(pixel_values=pixels).last_hidden_state
        queries = model.qformer(
            query_embeds=model.query_tokens.expand(len(pixels), -1, -1),
            encoder_hidden_states=vision,
        ).last_hidden_state
        return vision, queries

    def probe_features(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        vision, queries = both(pixels)
        return {"vit": _average_cells(vision[:, 1:]), "qformer": queries}

    width = model.config.vision_config.hidden_size
    return VisionSetup(
        modules=[model.vision_model, model.qformer],
        probe_features=probe_features,
        encode=lambda pixels: both(pixels)[1],
        widths={"vit": width, "qformer": model.config.qformer_config.hidden_size},
        queries=[model.query_tokens],
    )


def llava_vision(model: LlavaForConditionalGeneration) -> VisionSetup:
    """The CLIP ViT up to its second to last layer, which LLaVA reads; a patch is a cell."""
    tower = model.model.vision_tower

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        states = tower(pixels, output_hidden_states=True).hidden_states
        patches: torch.Tensor = states[model.config.vision_feature_layer][:, 1:]
        return patches

    return VisionSetup(
        modules=[tower],
        probe_features=lambda pixels: {"vit": encode(pixels)},
        encode=encode,
        widths={"vit": model.config.vision_config.hidden_size},
        queries=[],
        places=True,
    )


def vit_outputs(model: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """The outputs of a BLIP-2's ViT, (n, 1 + patches, width)."""

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = model.vision_model(pixel_values=pixels).last_hidden_state
        return features

    return encode


def train_vision(
    model: nn.Module,
    setup: VisionSetup,
    pixels: np.ndarray,
    config: TrainConfig,
    checkpoint: Checkpoint,
    sink: MetricSink,
) -> None:
    """Stage 1: learn to predict the content of every cell."""
    torch.manual_seed(config.seed)
    probes = nn.ModuleList([Probe(width, setup.places) for width in setup.widths.values()])
    optimizer = make_optimizer([*setup.modules, probes], config)
    if setup.queries:
        optimizer.add_param_group({"params": setup.queries, "weight_decay": 0.0})
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
        images = batch_of_step(config, config.vision_batch, step)
        generator.manual_seed(config.seed * 1_000_003 + step)
        batch = _augment(normalize(pixels[images]), generator)
        with torch.autocast("cpu", torch.bfloat16):
            features = setup.probe_features(batch)
            results = [
                probe(values, cells[images], grounds[images])
                for probe, values in zip(probes, features.values(), strict=True)
            ]
        loss = torch.stack([result[0] for result in results]).sum()
        take_step(optimizer, loss, learning_rate(config.vision_lr, step, config.vision_steps))
        if (step + 1) % 20 == 0:
            accuracy = {name: r[1].item() for name, r in zip(features, results, strict=True)}
            sink({"vision/loss": loss.item()} | prefixed("vision/cells_", accuracy), step + 1)
            bar.set_postfix(loss=f"{loss.item():.3f}", cells=f"{min(accuracy.values()):.3f}")
        if (step + 1) % config.checkpoint_every == 0:
            checkpoint.save(
                "vision",
                step + 1,
                model=model.state_dict(),
                probes=probes.state_dict(),
                optimizer=optimizer.state_dict(),
            )


@torch.no_grad()
def encode_images(
    encode: Callable[[torch.Tensor], torch.Tensor], pixels: np.ndarray
) -> torch.Tensor:
    """The second stage's inputs for all pictures, (n, tokens, width) in bfloat16."""
    parts = []
    for start in tqdm(range(0, len(pixels), 256), desc="encode images", unit="batch"):
        with torch.autocast("cpu", torch.bfloat16):
            parts.append(encode(normalize(pixels[start : start + 256])).bfloat16())
    return torch.cat(parts)
