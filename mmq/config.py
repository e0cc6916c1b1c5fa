"""The options that all commands share. Each default is written here once."""

from dataclasses import dataclass, field
from typing import Any

from mmq.errors import InputError

DEFAULT_QUANTIZER = "rtn"  # needs no calibration data
QUANTIZER_HELP = "Quantizer plugin (e.g. gptq); its options follow, such as --group-size 64."

EXPERIMENT_HELP = (
    "MLflow experiment to log to; empty: that of MLFLOW_RUN_ID or MLFLOW_EXPERIMENT_NAME, or mmq."
)


WORKERS_HELP = "Run this many processes, each with its own model (e.g. 4)."
LAUNCHER_HELP = (
    "Start workers with this plugin: local, ray or slurm; its options follow, such as "
    "--partition gpu."
)
GPUS_HELP = "Reserve this many GPUs for each worker (e.g. 1); 0: workers share all GPUs."
SIZE_AXIS_HELP = "Compare stored sizes (with scales and zero points) or nominal ones (bits only)."
COMBINE_HELP = "Of several tasks, compare the worst or the mean share of the unquantized scores."
DRY_RUN_HELP = "Print what would be started (for slurm, the job's script), and start nothing."


def flag(name: str) -> str:
    """The command option of a field: group_size -> --group-size."""
    return "--" + name.rstrip("_").replace("_", "-")  # from_: `from` is a word of Python


def option(default: Any, help: str) -> Any:
    """A field that becomes a command option with this help text."""
    return field(default=default, metadata={"help": help})


def repeatable(help: str) -> Any:
    """A text field whose command option may be repeated; its values are joined by commas."""
    return field(default="", metadata={"help": help, "repeatable": True})


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """Which model to evaluate on which samples of which task."""

    model: str = option(
        "embedded-blip2",
        "Bundled model, local folder or hub name (e.g. Salesforce/blip2-opt-2.7b).",
    )
    task: str = option(
        "vqa",
        "Evaluator plugin to score with (e.g. captioning), or several (e.g. vqa,gqa); see "
        "`mmq plugins`.",
    )
    data: str = option(
        "scenes",
        "Bundled data set, folder or own table (e.g. photos.csv), or one per task; see "
        "`mmq datasets`.",
    )
    dataset: str = option("", "Data set plugin that reads the data (e.g. vqav2); empty: detected.")
    fields: str = option(
        "", "Columns of a table (e.g. image=photo,question=q,answers=label); empty: guessed."
    )
    limit: str = option(
        "0", "Score a seeded random subset (e.g. 500 samples, or 10%); 0: all samples."
    )
    calibration_data: str = option(
        "",
        "Calibrate on other data, also on texts alone (e.g. train.csv, or a.csv:0.7,b.txt:0.3).",
    )
    calibration_samples: int = option(
        128, "Number of image-text pairs that a calibrated quantizer uses."
    )
    seed: int = option(0, "Seed of all random numbers.")
    dtype: str = option(
        "auto",
        "Load weights as float32, float16 or bfloat16; auto: as stored (on a CPU, no float16).",
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
    template: str = repeatable(
        "Set variables of the chat template (e.g. enable_thinking=false,effort=low); repeatable."
    )
    system_prompt: str = option(
        "", "Start every prompt with this system message, if the chat template reads it."
    )
    min_pixels: int = option(
        0, "Scale pictures up to this many pixels (e.g. 200704); 0: the processor's own limit."
    )
    max_pixels: int = option(
        0, "Scale pictures down to this many pixels (e.g. 1003520); 0: the processor's own limit."
    )

    def __post_init__(self) -> None:
        for name in ("min_pixels", "max_pixels"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}: {getattr(self, name)} is negative; give pixels, or 0")


@dataclass(frozen=True, slots=True)
class EvalOptions(TaskOptions):
    """What to evaluate, quantized with which quantizer."""

    quantizer: str = option(DEFAULT_QUANTIZER, QUANTIZER_HELP)
