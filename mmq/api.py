"""The Python API: what the commands do, as functions of plain values that return typed objects.

    import mmq

    record = mmq.evaluate({"vit": 4, "llm": 3}, model="embedded-llava", limit=50)
    study = mmq.search(model="embedded-llava", limit=50, n_trials=10)
    study.front(), study.best(max_bpw=5).point

Every argument is the option of the command of that name, and has its default. Plugins are given by
name with `quantizer_options={"group_size": 64}`, or as objects (`quantizer=Gptq(group_size=64)`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack

from mmq.allocation.allocation import BitAllocation
from mmq.contracts import Evaluator, Quantizer, registry
from mmq.contracts import options as plugin_options
from mmq.errors import InputError, unknown
from mmq.record import TrialRecord
from mmq.studies import options as study_options
from mmq.studies.analysis_run import LoggedAnalysis, run_analysis
from mmq.studies.comparison_run import Comparison, run_comparison
from mmq.studies.curves_run import Curves, run_curves
from mmq.studies.designs_run import ABLATION, GRID, SWEEP, run_design
from mmq.studies.front import Results
from mmq.studies.measure_run import MeasuredExport, run_measure
from mmq.studies.single import run_single, unquantized
from mmq.studies.study import Study
from mmq.system.environment import set_up_environment

T = TypeVar("T")
Allocation = str | Mapping[str, int] | BitAllocation  # "vit=4,llm=3" or {"vit": 4, "llm": 3}


class TaskArguments(TypedDict, total=False):
    """What to evaluate. limit: so many samples, or a share of them, like 0.1."""

    model: str | Path
    task: str | Evaluator
    task_options: Mapping[str, Any]
    data: str | Path
    dataset: str
    fields: str
    calibration_data: str
    limit: int | float
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
    """What to evaluate, quantized how."""

    quantizer: str | Quantizer
    quantizer_options: Mapping[str, Any]


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
    """A search. max_drop: a share of the unquantized score, 0.01 for 1%. timeout: seconds."""

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
    timeout: float
    workers: int
    launcher: str
    launcher_options: Mapping[str, Any]
    gpus_per_worker: int
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


class MeasureArguments(TypedDict, total=False):
    """What to ask an exported model. run: in place of a folder, a run or models:/NAME@ALIAS."""

    run: str
    unquantized: bool
    repeats: int
    tokens: int
    picture: str | Path
    prompt: str
    threads: int
    device: str
    experiment: str


def evaluate(bits: Allocation | None = None, **arguments: Unpack[EvalArguments]) -> TrialRecord:
    """Quantize by one allocation, score it and log it; unquantized without `bits`.

    Components that are not named stay at 16 bits.
    """
    options, plugins = read_arguments(study_options.BaselineOptions, arguments)
    allocate = unquantized if bits is None else allocation_of(bits).over
    return run_single(options, plugins, allocate).record


def sweep(**arguments: Unpack[DesignArguments]) -> Study:
    """Try each width on all subsets of components, block groups and layer types."""
    return run_design(SWEEP, *read_arguments(study_options.SweepOptions, arguments))


def ablate(**arguments: Unpack[DesignArguments]) -> Study:
    """Try each component alone at every width, and each pair at all pairs of widths."""
    return run_design(ABLATION, *read_arguments(study_options.AblateOptions, arguments))


def grid(**arguments: Unpack[DesignArguments]) -> Study:
    """Try every combination of the widths over the components."""
    return run_design(GRID, *read_arguments(study_options.GridOptions, arguments))


def curves(**arguments: Unpack[CurvesArguments]) -> Curves:
    """Trace the score against the bits of each component alone, and of all at once."""
    return run_curves(*read_arguments(study_options.CurvesOptions, arguments))


def compare(**arguments: Unpack[QuantizersArguments]) -> Comparison:
    """Compare quantizers, with every component at one width after another."""
    return run_comparison(*read_arguments(study_options.QuantizerStudyOptions, arguments))


def search(**arguments: Unpack[SearchArguments]) -> Study:
    """Search per-component bit widths for the Pareto front of size against score.

    The same arguments again resume the study.
    """
    study: Study = registry.load("function", "search")(**arguments)
    return study


def analyze(*studies: str | Study, **arguments: Unpack[AnalyzeArguments]) -> LoggedAnalysis:
    """Rank the parts of a model by what their bits matter for the score, with intervals.

    studies: names or studies; all of the experiment if there are none, nor a file.
    """
    names = ",".join(each if isinstance(each, str) else each.name for each in studies)
    options, _ = read_arguments(study_options.AnalyzeOptions, {**arguments, "study": names})
    return run_analysis(options)


def measure(folder: str | Path = "", **arguments: Unpack[MeasureArguments]) -> MeasuredExport:
    """Time an exported model beside the unquantized one, in the same engine."""
    options, _ = read_arguments(study_options.MeasureOptions, {**arguments, "path": folder})
    return run_measure(options, quiet=True)


def load_study(name: str, experiment: str = "", quantizer: str = "") -> Study:
    """A study that was logged to MLflow, whichever command ran it; InputError for another name.

    quantizer: which one, if the study (a comparison or curves) has several.
    """
    from mmq.tracking import fetch_record, find_study, server_address
    from mmq.tracking.queries import find_trials
    from mmq.tracking.sample_scores import read_samples

    set_up_environment()
    groups, links = find_trials(experiment, [name])
    by_quantizer = {group.params.get("quantizer.name", ""): group for group in groups}
    if len(groups) > 1 and quantizer not in by_quantizer:
        raise InputError(
            f"quantizer: study {name!r} has several; choose from {', '.join(sorted(by_quantizer))}"
        )
    group = by_quantizer[quantizer] if len(groups) > 1 else groups[0]
    read_samples([group], quiet=True)
    runs = {str(trial.allocation): trial for trial in group.trials}

    @cache
    def read(allocation: str) -> TrialRecord | None:
        return None if runs[allocation].imported else fetch_record(runs[allocation].run_id)

    def sample_scores(allocation: str) -> Sequence[float] | None:
        return group.samples.get(runs[allocation].run_id)

    points = group.points("score")
    first = next((record for record in map(read, runs) if record is not None), None)
    results = Results(
        name,
        "score" if first is None else first.primary,
        points,
        sample_scores,
        group.pictures or [],
        parameters=0 if first is None else first.size.parameters,
    )
    parent = find_study(experiment, name)
    url = f"{server_address()}/{links[name]}"
    return Study(results, read, "" if parent is None else parent[1], url, url)


def allocation_of(bits: Allocation) -> BitAllocation:
    """An allocation from text, a mapping or itself."""
    if isinstance(bits, BitAllocation):
        return bits
    return BitAllocation.parse(bits) if isinstance(bits, str) else BitAllocation.of(bits)


def read_arguments(config: type[T], arguments: Mapping[str, Any]) -> tuple[T, dict[str, Any]]:
    """The options of a command, and those of its plugins, from a function's arguments.

    InputError for an unknown argument, or a value of the wrong type.
    """
    set_up_environment()
    rest, plugins = dict(arguments), dict[str, Any]()
    for role, name in (("quantizer", "quantizer"), ("evaluator", "task")):
        if not isinstance(rest.get(name, ""), str):
            rest[name], own = _plugin(role, rest[name])
            plugins |= {f"{role}.{key}": value for key, value in own.items()}
    prefix = "" if "quantizers" in (field.name for field in fields(config)) else "quantizer."  # type: ignore[arg-type]
    starts = {"quantizer_options": prefix, "task_options": "evaluator."}
    for key, start in {**starts, "launcher_options": "launcher."}.items():
        plugins |= {f"{start}{option}": value for option, value in rest.pop(key, {}).items()}
    if "quantizers" in rest:
        rest["quantizers"] = ",".join(map(_label, rest["quantizers"]))
    known = {field.name: field.default for field in fields(config)}  # type: ignore[arg-type]
    own_options = {}
    for name, value in rest.items():
        if name not in known:
            raise unknown("argument", name, [*known, *starts, "launcher_options"])
        own_options[name] = _option(name, value, known[name])
    return config(**own_options), plugins


def _plugin(role: str, plugin: Any) -> tuple[str, dict[str, Any]]:
    """An object's plugin name, and its options that are not the defaults."""
    values, kind = plugin_options.values(plugin), type(plugin)
    defaults = {f.name: f.default for f in fields(kind)}
    own = {name: value for name, value in values.items() if value != defaults[name]}
    return registry.identity(role, kind).name, own


def _label(quantizer: str | Quantizer) -> str:
    """A quantizer as studies of several write it, with the options that are not the defaults."""
    if isinstance(quantizer, str):
        return quantizer
    name, options = _plugin("quantizer", quantizer)
    return ":".join([name, *(f"{key}={value}" for key, value in options.items())]).lower()


def _option(name: str, value: Any, default: Any) -> Any:
    """A value as the command's options hold it; InputError for one of the wrong type."""
    if name in ("limit", "max_drop") and isinstance(value, float):
        if not 0 < value < 1:
            raise InputError(f"{name}: {value} is not a share between 0 and 1")
        return f"{100 * value:.12g}%"
    if isinstance(default, bool) or not isinstance(default, str):
        if default is not MISSING and type(value) is not type(default):
            raise InputError(f"{name}: {value!r} is not of type {type(default).__name__}")
        return value
    if isinstance(value, Mapping):
        return ",".join(f"{key}={each}" for key, each in value.items())
    if isinstance(value, str | Path | int | float) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, Sequence):
        return ",".join(map(str, value))
    raise InputError(f"{name}: {value!r} is not a value of this argument")
