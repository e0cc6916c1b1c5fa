"""The options that all commands share. Each default is written here once."""

from dataclasses import dataclass, field
from typing import Any

QUANTIZER_HELP = "Quantizer plugin (e.g. gptq); its options follow, such as --group-size 64."

EXPERIMENT_HELP = (
    "MLflow experiment to log to; empty: that of MLFLOW_RUN_ID or MLFLOW_EXPERIMENT_NAME, or mmq."
)


def option(default: Any, help: str) -> Any:
    """A field that becomes a command option with this help text."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """Which model to evaluate on which samples of which task."""

    model: str = option(
        "embedded-blip2",
        "Bundled model, local folder or hub name (e.g. Salesforce/blip2-opt-2.7b).",
    )
    task: str = option(
        "vqa", "Evaluator plugin to score with (e.g. captioning); see `mmq plugins`."
    )
    data: str = option(
        "scenes", "Bundled data set, or a folder with the official files; see `mmq datasets`."
    )
    dataset: str = option(
        "", "Data set plugin that reads the folder (e.g. vqav2); empty: detected."
    )
    limit: str = option(
        "0", "Score a seeded random subset (e.g. 500 samples, or 10%); 0: all samples."
    )
    calibration_samples: int = option(
        128, "Number of image-text pairs that a calibrated quantizer uses."
    )
    seed: int = option(0, "Seed of all random numbers.")
    dtype: str = option(
        "auto", "Load weights as float32, float16 or bfloat16; auto: float16 on a GPU."
    )
    device: str = option(
        "auto", "Run on this device (e.g. cpu, cuda:1, mps); auto: CUDA if available."
    )
    device_map: str = option(
        "", "Spread a model that fits on no device over GPUs, CPU memory and disk (auto)."
    )
    max_memory: str = option(
        "", "With --device-map: memory to use per device (e.g. 0=20GiB,cpu=12GiB); empty: all."
    )
    allow_pickle: bool = option(
        False, "Load pickled weights if there are no safetensors; only from a trusted source."
    )
    allow_unread_weights: bool = option(
        False, "Load a checkpoint that has weights which the model does not use."
    )
    parts: str = option(
        "", "Also quantize these parts outside blocks: embed, projector, head (e.g. embed,head)."
    )


@dataclass(frozen=True, slots=True)
class EvalOptions(TaskOptions):
    """What to evaluate, quantized with which quantizer."""

    quantizer: str = option("rtn", QUANTIZER_HELP)
