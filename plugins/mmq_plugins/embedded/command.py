"""`mmq train-embedded`: train an embedded model from a seed."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmq.cli.command import command
from mmq.cli.options import options_from
from mmq.config import EXPERIMENT_HELP, option
from mmq.errors import InputError, unknown

if TYPE_CHECKING:
    from mmq_plugins.embedded.steps import TrainConfig
    from mmq_plugins.embedded.train import Recipe

STEPS = ("vision_steps", "language_steps", "relation_steps")


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How to train and where to save the checkpoint; 0: as for the shipped model."""

    model: str = option(
        "embedded-blip2", "Model to train: embedded-blip2, embedded-llava or embedded-retrieval."
    )
    output: str = option("", "Folder for the checkpoint; if empty: the model's name.")
    seed: int = option(0, "Seed of weights and data.")
    images: int = option(0, "Number of training scenes (e.g. 60000); 0: as for the shipped model.")
    vision_steps: int = option(0, "Steps of the vision encoder (and the Q-Former).")
    language_steps: int = option(0, "Steps of the language model, or of the matching Q-Former.")
    relation_steps: int = option(0, "Steps of the embedded BLIP-2's last stage.")
    experiment: str = option("", EXPERIMENT_HELP)


@command("train-embedded", "mmq train-embedded --model embedded-llava --output mine")
@options_from(TrainOptions)
def train_embedded(options: TrainOptions, plugin_options: Mapping[str, str]) -> None:
    """Train an embedded model on scenes, one to two hours on one core, and log curves to MLflow.

    The defaults train the shipped checkpoints. Run the same command again to resume.
    """
    for name in plugin_options:
        raise unknown("option", name, [f.replace("_", "-") for f in TrainOptions.__slots__])
    from mmq.tracking import plain_run
    from mmq_plugins.embedded.steps import Checkpoint
    from mmq_plugins.embedded.train import RECIPES

    if options.model not in RECIPES:
        raise unknown("embedded model", options.model, RECIPES)
    recipe = RECIPES[options.model]
    config = configure(recipe.config, options)
    output = Path(options.output or options.model)
    Checkpoint(output, config).load("any")  # InputError for a training with other settings
    output.mkdir(parents=True, exist_ok=True)
    params = {f"training.{name}": value for name, value in asdict(config).items()}
    params["training.model"] = options.model
    with plain_run(options.experiment, f"train {output.name}", params) as run:
        make(recipe, config, output, lambda values, step: run.log(metrics=values, step=step))
    click.echo(f"Checkpoint: {output} (use it with --model {output})")


def configure(config: "TrainConfig", options: TrainOptions) -> "TrainConfig":
    """The recipe's settings with the given ones; InputError for invalid ones."""
    given = {name: getattr(options, name) for name in ("images", *STEPS) if getattr(options, name)}
    for name, value in given.items():
        if value < 1:
            raise InputError(f"{name}: {value} is negative; give 1 or more, or 0 for the default")
    if "relation_steps" in given and not config.relation_steps:
        raise InputError(f"relation_steps: {options.model} has no such stage; leave it at 0")
    smallest = max(config.vision_batch, config.language_batch)
    if given.get("images", smallest) < smallest:
        raise InputError(
            f"images: {options.images} is less than a batch; give at least {smallest}"
        )
    return replace(config, seed=options.seed, **given)


def make(recipe: "Recipe", config: "TrainConfig", output: Path, sink: Any) -> None:
    """Train, add outlier channels, save model and processor; deterministic on one thread."""
    from mmq_plugins.embedded.train import train

    started = time.time()
    model, tokenizer = train(recipe, config, output, sink)
    export(recipe, model, tokenizer, config, output, time.time() - started)


def export(
    recipe: "Recipe",
    model: Any,
    tokenizer: Any,
    config: "TrainConfig",
    output: Path,
    seconds: float,
) -> None:
    """Save the model with outlier channels in float16, its processor and how it was made."""
    import torch

    from mmq_plugins.embedded.outliers import BULK_RANGE, SHARE, add_outliers_

    model.eval()
    add_outliers_(model, config.seed)
    model.to(torch.float16).save_pretrained(output, safe_serialization=True)
    recipe.processor(tokenizer).save_pretrained(output)
    made = {
        "training": asdict(config),
        "outliers": {"share": SHARE, "bulk_range": BULK_RANGE, "seed": config.seed},
        "seconds": round(seconds),
    }
    if recipe.protocol:
        (output / "mmq.json").write_text(
            json.dumps({"protocol": recipe.protocol}, indent=1) + "\n"
        )
    card = Path(__file__).with_name("card.md").read_text()
    (output / "README.md").write_text(card.format(name=recipe.name, about=recipe.about))
    (output / "recipe.json").write_text(json.dumps(made, indent=1) + "\n")
