"""`mmq train-embedded`: train the embedded BLIP-2 again, from a seed."""

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmq.cli.options import options_from
from mmq.errors import InputError, unknown
from mmq.prepare import option

if TYPE_CHECKING:
    from mmq_plugins.embedded.steps import TrainConfig


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How to train and where to put the checkpoint."""

    output: str = option("embedded-blip2", "Folder for the checkpoint; training goes on there.")
    seed: int = option(0, "Seed of weights and data.")
    images: int = option(60_000, "Training scenes.")
    vision_steps: int = option(1_600, "Steps of the ViT and Q-Former.")
    language_steps: int = option(6_000, "Steps of the language model.")
    experiment: str = option("mmq", "MLflow experiment (mlflow run: --experiment-name).")


@click.command("train-embedded")
@options_from(TrainOptions)
def train_embedded(chosen: TrainOptions, extra: Mapping[str, str]) -> None:
    """Train the embedded BLIP-2 on scenes, about 80 minutes on one core; curves go to MLflow.

    The shipped checkpoint came from the defaults. The same command goes on after a kill.
    """
    for name in extra:
        raise unknown("option", name, [f.replace("_", "-") for f in TrainOptions.__slots__])
    for name in ("images", "vision_steps", "language_steps"):
        if getattr(chosen, name) < 1:
            raise InputError(f"{name}: {getattr(chosen, name)} is not at least 1")
    if chosen.images < 64:
        raise InputError(f"images: {chosen.images} is less than a batch of 64")

    from mmq.tracking import plain_run
    from mmq_plugins.embedded.steps import Checkpoint, TrainConfig

    config = TrainConfig(
        seed=chosen.seed,
        images=chosen.images,
        vision_steps=chosen.vision_steps,
        language_steps=chosen.language_steps,
    )
    output = Path(chosen.output)
    Checkpoint(output, config).load("language")  # refuses a training with other settings
    output.mkdir(parents=True, exist_ok=True)
    params = {f"training.{name}": value for name, value in asdict(config).items()}
    with plain_run(chosen.experiment, f"train {output.name}", params) as run:
        train_and_export(config, output, lambda values, step: run.log(metrics=values, step=step))
    click.echo(f"Checkpoint: {output} (use it with --model {output})")


def train_and_export(config: "TrainConfig", output: Path, sink: Any) -> None:
    """Train, add outlier channels, save model and processor; one thread, so a seed is a result."""
    import torch

    from mmq_plugins.embedded.build import build_blip2, build_tokenizer
    from mmq_plugins.embedded.train import train_blip2

    torch.set_num_threads(1)
    started = time.time()
    tokenizer, model = build_tokenizer(), build_blip2(config.seed)
    model.train()
    train_blip2(model, tokenizer, config, output, sink)
    export(model, tokenizer, config, output, time.time() - started)


def export(
    model: Any, tokenizer: Any, config: "TrainConfig", output: Path, seconds: float
) -> None:
    """Save the model with outlier channels in float16, its processor and how it was made."""
    import torch

    from mmq_plugins.embedded.build import build_processor
    from mmq_plugins.embedded.outliers import BULK_RANGE, SHARE, add_outliers_

    model.eval()
    add_outliers_(model, config.seed)
    model.to(torch.float16).save_pretrained(output, safe_serialization=True)
    build_processor(tokenizer).save_pretrained(output)
    recipe = {
        "training": asdict(config),
        "outliers": {"share": SHARE, "bulk_range": BULK_RANGE, "seed": config.seed},
        "seconds": round(seconds),
    }
    shutil.copy(Path(__file__).with_name("card.md"), output / "README.md")
    (output / "recipe.json").write_text(json.dumps(recipe, indent=1) + "\n")
