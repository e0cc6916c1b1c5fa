"""The arguments of the Python API, and the command options that they stand for."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from mmq.contracts import Evaluator, Quantizer, registry
from mmq.contracts import options as plugin_options
from mmq.errors import InputError, unknown
from mmq.system.environment import set_up_environment
from mmq.task_names import parse_tasks

T = TypeVar("T")


class TaskArguments(TypedDict, total=False):
    """What to evaluate. limit: a number of samples, or a share of them, like 0.1.

    Several tasks are a sequence; what differs between them is a mapping by task. Their options are
    task_options={"vqa.num_beams": 3}.
    """

    model: str | Path
    task: str | Evaluator | Sequence[str | Evaluator]
    task_options: Mapping[str, Any]
    data: str | Path | Mapping[str, str | Path]
    dataset: str | Mapping[str, str]
    fields: str | Mapping[str, str]
    calibration_data: str | Mapping[str, str]
    limit: int | float | Mapping[str, int]
    calibration_samples: int
    seed: int
    dtype: str
    device: str
    device_map: str
    max_memory: str
    allow_pickle: bool
    allow_unread_weights: bool
    parts: str
    template: str | Mapping[str, Any]
    system_prompt: str
    min_pixels: int
    max_pixels: int
    experiment: str


class EvalArguments(TaskArguments, total=False):
    """The trials to evaluate, and their quantizer."""

    quantizer: str | Quantizer
    quantizer_options: Mapping[str, Any]


class TrialArguments(EvalArguments, total=False):
    """A single trial. combine: of several tasks' shares, worst or mean."""

    combine: str


class DesignArguments(EvalArguments, total=False):
    """A study whose allocations are known beforehand. launcher_options: of the launcher plugin."""

    bits: Sequence[int]
    study: str
    workers: int
    launcher: str
    launcher_options: Mapping[str, Any]
    gpus_per_worker: int
    size_axis: str
    figure: str | Path


class QuantizersArguments(TaskArguments, total=False):
    """A study of several quantizers. quantizer_options go to every one that has them."""

    quantizers: Sequence[str | Quantizer]
    quantizer_options: Mapping[str, Any]
    bits: Sequence[int]
    study: str
    workers: int
    launcher: str
    launcher_options: Mapping[str, Any]
    gpus_per_worker: int


class CurvesArguments(QuantizersArguments, total=False):
    """The same, and where the figure goes."""

    figure: str | Path


class SearchArguments(EvalArguments, total=False):
    """A search. max_drop: a share of the unquantized score, 0.01 for 1%. timeout: seconds.

    max_flips: a share of the answers. combine: of several tasks' shares, worst or mean.
    """

    bits: Sequence[int]
    granularity: str
    n_trials: int
    size_axis: str
    target: str
    cost: str
    max_bpw: float
    max_size_gib: float
    max_latency_ms: float
    min_score: float
    max_drop: float
    max_flips: float
    timeout: float
    workers: int
    launcher: str
    launcher_options: Mapping[str, Any]
    gpus_per_worker: int
    combine: str
    objective: str
    prune: bool
    study: str


class AnalyzeArguments(TypedDict, total=False):
    """Which results to analyze, and how thoroughly."""

    file: str | Path
    bits_columns: Mapping[str, str]
    score: str
    tag: Mapping[str, str]
    filter: str
    samples: bool
    trees: int
    bootstrap: int
    repeats: int
    seed: int
    jobs: int
    report: str | Path
    experiment: str


class CompareArguments(TypedDict, total=False):
    """How many answers to show. data: where the pictures are, if not where they were."""

    rows: int
    data: str | Path
    experiment: str


class MeasureArguments(TypedDict, total=False):
    """A question for an exported model. run: instead of a folder, a run or models:/NAME@ALIAS."""

    run: str
    unquantized: bool
    repeats: int
    tokens: int
    picture: str | Path
    prompt: str
    threads: int
    device: str
    experiment: str


def read_arguments(config: type[T], arguments: Mapping[str, Any]) -> tuple[T, dict[str, Any]]:
    """The options of a command, and those of its plugins, from a function's arguments.

    InputError for an unknown argument, or a value of the wrong type.
    """
    set_up_environment()
    rest, plugins = dict(arguments), dict[str, Any]()
    for role, name in (("quantizer", "quantizer"), ("evaluator", "task")):
        if isinstance(rest.get(name, ""), Evaluator | Quantizer):
            rest[name], own = _plugin(role, rest[name])
            plugins |= {f"{role}.{key}": value for key, value in own.items()}
    if not isinstance(rest.get("task", ""), str):
        rest["task"], own = _tasks(rest["task"])
        plugins |= own
    prefix = "" if "quantizers" in (field.name for field in fields(config)) else "quantizer."  # type: ignore[arg-type]
    starts = {"quantizer_options": prefix, "task_options": "evaluator."}
    for key, start in {**starts, "launcher_options": "launcher."}.items():
        plugins |= {f"{start}{option}": value for option, value in rest.pop(key, {}).items()}
    if "quantizers" in rest:
        rest["quantizers"] = ",".join(map(_label, rest["quantizers"]))
    defaults = {field.name: field.default for field in fields(config)}  # type: ignore[arg-type]
    own_options = {}
    for name, value in rest.items():
        if name not in defaults:
            raise unknown("argument", name, [*defaults, *starts, "launcher_options"])
        own_options[name] = _option(name, value, defaults[name])
    return config(**own_options), plugins


def _plugin(role: str, plugin: Any) -> tuple[str, dict[str, Any]]:
    """An object's plugin name, and its options that are not the defaults."""
    values, kind = plugin_options.values(plugin), type(plugin)
    defaults = {f.name: f.default for f in fields(kind)}
    own = {name: value for name, value in values.items() if value != defaults[name]}
    return registry.identity(role, kind).name, own


def _tasks(tasks: Sequence[str | Evaluator]) -> tuple[str, dict[str, Any]]:
    """Several tasks as --task names them, and the options of those that are objects."""
    plugins = [task if isinstance(task, str) else _plugin("evaluator", task) for task in tasks]
    text = ",".join(task if isinstance(task, str) else task[0] for task in plugins)
    return text, {
        f"evaluator.{label}.{name}": value
        for label, plugin in zip(parse_tasks(text), plugins, strict=True)
        if not isinstance(plugin, str)
        for name, value in plugin[1].items()
    }


def _label(quantizer: str | Quantizer) -> str:
    """A quantizer as studies of several write it, with the options that are not the defaults."""
    if isinstance(quantizer, str):
        return quantizer
    name, options = _plugin("quantizer", quantizer)
    return ":".join([name, *(f"{key}={value}" for key, value in options.items())]).lower()


def _option(name: str, value: Any, default: Any) -> Any:
    """A value as the command's options hold it; InputError for one of the wrong type."""
    if name in ("limit", "max_drop", "max_flips") and isinstance(value, float):
        if not 0 < value < 1:
            raise InputError(f"{name}: {value} is not a share between 0 and 1")
        return f"{100 * value:.12g}%"
    if isinstance(default, bool) or not isinstance(default, str):
        if default is not MISSING and type(value) is not type(default):
            raise InputError(f"{name}: {value!r} is not of type {type(default).__name__}")
        return value
    if isinstance(value, Mapping):
        return ",".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, str | Path | int | float) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, Sequence):
        return ",".join(map(str, value))
    raise InputError(f"{name}: {value!r} is not a value of this argument")
