"""The options of the commands that run studies; importing them is quick, for `--help`."""

from dataclasses import dataclass

from mmq.analysis.settings import DEFAULTS
from mmq.config import (
    COMBINE_HELP,
    DEFAULT_QUANTIZER,
    DRY_RUN_HELP,
    EXPERIMENT_HELP,
    GPUS_HELP,
    LAUNCHER_HELP,
    QUANTIZER_HELP,
    SIZE_AXIS_HELP,
    WORKERS_HELP,
    EvalOptions,
    TaskOptions,
    option,
)

FIGURE_HELP = "Write the figure to this PNG file, too (e.g. front.png)."


@dataclass(frozen=True, slots=True)
class BaselineOptions(EvalOptions):
    """Options of an evaluation of the unquantized model."""

    combine: str = option("worst", COMBINE_HELP)
    experiment: str = option("", EXPERIMENT_HELP)


@dataclass(frozen=True, slots=True)
class TrialOptions(BaselineOptions):
    """Options of a single trial."""

    bits: str = option(
        "vit=4,qformer=8,llm=4",
        "Width of every component (e.g. 4), or of some, others at 16 (e.g. vit=4,llm=3).",
    )
    run: str = option(
        "",
        "Repeat the trial of this MLflow run or models:/NAME@ALIAS; options given here override.",
    )


@dataclass(frozen=True, slots=True)
class QuantizeOptions(EvalOptions):
    """Options of filling the store with quantized blocks."""

    bits: str = option("2,3,4,5,6,8", "Widths to quantize every component at (e.g. 3,4,8).")
    workers: int = option(1, WORKERS_HELP)
    launcher: str = option("local", LAUNCHER_HELP)
    gpus_per_worker: int = option(0, GPUS_HELP)
    dry_run: bool = option(False, DRY_RUN_HELP)
    experiment: str = option("", EXPERIMENT_HELP)


@dataclass(frozen=True, slots=True)
class PlannedOptions(TaskOptions):
    """Options of a study of planned allocations."""

    bits: str = option("4,3,2", "Widths to quantize at (e.g. 4,3).")
    study: str = option(
        "", "Name of the study to start or resume; empty: derived from the other options."
    )
    workers: int = option(1, WORKERS_HELP)
    launcher: str = option("local", LAUNCHER_HELP)
    gpus_per_worker: int = option(0, GPUS_HELP)
    dry_run: bool = option(False, DRY_RUN_HELP)
    experiment: str = option("", EXPERIMENT_HELP)


@dataclass(frozen=True, slots=True)
class DesignOptions(PlannedOptions):
    """Options of a study of planned allocations by one quantizer."""

    quantizer: str = option(DEFAULT_QUANTIZER, QUANTIZER_HELP)
    size_axis: str = option("stored", SIZE_AXIS_HELP)
    figure: str = option("", FIGURE_HELP)


@dataclass(frozen=True, slots=True)
class SweepOptions(DesignOptions):
    """Options of a sweep over all subsets of parts."""

    bits: str = option("2,4,6,8", "Widths to try on all subsets of parts (e.g. 4,8).")


@dataclass(frozen=True, slots=True)
class AblateOptions(DesignOptions):
    """Options of an ablation of single components and pairs."""

    bits: str = option("2,3,4,5,6,8", "Widths of single components and of pairs (e.g. 3,4,8).")


@dataclass(frozen=True, slots=True)
class GridOptions(DesignOptions):
    """Options of a full grid."""

    bits: str = option("2,3,4,5,6,8,16", "Widths of every component (e.g. 3,4,16).")


@dataclass(frozen=True, slots=True)
class QuantizerStudyOptions(PlannedOptions):
    """Options of a comparison of quantizers."""

    quantizers: str = option(
        "", "Quantizers (e.g. rtn,gptq:act-order=false); empty: all that are installed."
    )


@dataclass(frozen=True, slots=True)
class CurvesOptions(QuantizerStudyOptions):
    """Options of curves over the widths."""

    quantizers: str = option("uniform,rtn,gptq,awq", "Quantizers, one curve each (e.g. rtn,gptq).")
    bits: str = option("2,3,4,5,6,8", "Widths along the curves (e.g. 2,4,8).")
    figure: str = option("", FIGURE_HELP)


@dataclass(frozen=True, slots=True)
class FileOptions:
    """A table of results, and the meaning of its columns."""

    file: str = option("", "CSV or JSON file with one row per configuration.")
    bits_columns: str = option(
        "", "Columns of the bits (e.g. vit=v,llm=l); empty: those named vit_bits, or vit."
    )
    score: str = option("", "Column of the score to maximize; empty: score.")


@dataclass(frozen=True, slots=True)
class AnalyzeOptions(FileOptions):
    """Which results to analyze, and how."""

    file: str = option(
        "", "Analyze these CSV or JSON files instead of studies (e.g. a.csv,b.json)."
    )
    score: str = option("", "Metric, or column of the files, to analyze; empty: score.")
    study: str = option("", "Studies to analyze (e.g. one,two); empty: the latest.")
    tag: str = option("", "Only use trials with this tag (e.g. mmq.eval_spec=1a2b).")
    filter: str = option("", "Only use trials that match this MLflow filter.")
    samples: bool = option(
        True, "Also resample the evaluation images, if the trials have scores per sample."
    )
    trees: int = option(DEFAULTS.trees, "Number of trees per forest.")
    bootstrap: int = option(DEFAULTS.bootstrap, "Number of resamples for the intervals.")
    repeats: int = option(DEFAULTS.repeats, "Number of permutations per part.")
    seed: int = option(DEFAULTS.seed, "Seed of all random numbers.")
    jobs: int = option(DEFAULTS.jobs, "Number of processes; 0: one per core.")
    report: str = option(
        "", "Write a report to this Markdown file, with figures next to it (e.g. report.md)."
    )
    experiment: str = option("", EXPERIMENT_HELP)


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """An exported model, and its question."""

    path: str = option("", "Exported folder (e.g. ./mine).")
    run: str = option("", "Measure the latest export of this run, trial or models:/NAME@ALIAS.")
    unquantized: bool = option(True, "Measure the unquantized model in the same engine, in turns.")
    repeats: int = option(5, "Time this many answers of each model (e.g. 20).")
    tokens: int = option(32, "Generate this many tokens per answer (e.g. 128).")
    picture: str = option("", "Picture to ask about; empty: a generated one of 336 x 336 pixels.")
    prompt: str = option("Describe the picture.", "Question to ask.")
    threads: int = option(0, "Processor threads of the engine; 0: as many as PyTorch uses.")
    device: str = option("auto", "Run on this device (e.g. cpu, cuda:1); auto: CUDA if available.")
    experiment: str = option("", EXPERIMENT_HELP)
