"""What a user chooses: the options that all commands share."""

from dataclasses import dataclass, field
from typing import Any

QUANTIZER_HELP = "Quantizer plugin; its options follow as --group-size and so on."


EXPERIMENT_HELP = (
    "MLflow experiment; if empty, that of MLFLOW_RUN_ID or MLFLOW_EXPERIMENT_NAME, else mmq "
    "(mlflow run: --experiment-name)."
)


def option(default: Any, help: str) -> Any:
    """A field that becomes a command option with this help text."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """A model and a task: shared by all commands."""

    model: str = option("embedded-blip2", "Bundled model, local folder or hub name.")
    task: str = option("vqa", "Evaluator to score with; see `mmq plugins`.")
    data: str = option("scenes", "Bundled data set, or a folder in an official layout.")
    dataset: str = option("", "Data set plugin that reads the folder; found by itself if empty.")
    limit: str = option("0", "Score a seeded random part: 500 samples, or 10%; 0 scores all.")
    calibration_samples: int = option(128, "Training pairs a quantizer may look at.")
    seed: int = option(0, "Seed of everything random.")
    dtype: str = option("auto", "float32, float16 or bfloat16; auto: float16 on a GPU.")
    device: str = option("auto", "cpu, cuda, cuda:1, mps, ...; auto: CUDA if it is there.")
    allow_pickle: bool = option(False, "Load pickled weights where there are no safetensors.")
    allow_unread_weights: bool = option(False, "Allow weights that the model does not read.")


@dataclass(frozen=True, slots=True)
class EvalOptions(TaskOptions):
    """What to quantize, on which task, with which quantizer."""

    quantizer: str = option("rtn", QUANTIZER_HELP)
