"""The Python API: what the commands do, as functions of plain values that return typed objects.

    import mmq

    record = mmq.evaluate({"vit": 4, "llm": 3}, model="embedded-llava", limit=50)
    study = mmq.search(model="embedded-llava", limit=50, n_trials=10)
    study.front(), study.best(max_bpw=5).point

Every argument is the option of the command of that name, and has its default. Plugins are given by
name with `quantizer_options={"group_size": 64}`, or as objects (`quantizer=Gptq(group_size=64)`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Unpack

from mmq.allocation.allocation import BitAllocation
from mmq.arguments import (
    AnalyzeArguments,
    CompareArguments,
    CurvesArguments,
    DesignArguments,
    MeasureArguments,
    QuantizersArguments,
    SearchArguments,
    TrialArguments,
    read_arguments,
)
from mmq.contracts import registry
from mmq.record import TrialRecord
from mmq.studies import answers_run, logged_study
from mmq.studies import options as study_options
from mmq.studies.analysis_run import LoggedAnalysis, run_analysis
from mmq.studies.answers_run import AnswerComparison, CompareOptions
from mmq.studies.comparison_run import Comparison, run_comparison
from mmq.studies.curves_run import Curves, run_curves
from mmq.studies.designs_run import ABLATION, GRID, SWEEP, run_design
from mmq.studies.measure_run import MeasuredExport, run_measure
from mmq.studies.single import run_single, unquantized
from mmq.studies.study import Study

Allocation = str | Mapping[str, int] | BitAllocation  # "vit=4,llm=3" or {"vit": 4, "llm": 3}


def evaluate(bits: Allocation | None = None, **arguments: Unpack[TrialArguments]) -> TrialRecord:
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

    studies: names or `Study` objects; by default, and without a file, all of the experiment.
    """
    names = ",".join(each if isinstance(each, str) else each.name for each in studies)
    options, _ = read_arguments(study_options.AnalyzeOptions, {**arguments, "study": names})
    return run_analysis(options)


def compare_answers(
    first: str | TrialRecord, second: str | TrialRecord, **arguments: Unpack[CompareArguments]
) -> AnswerComparison:
    """Compare the answers of two trials, those that differ first; logged with their pictures.

    first, second: records, ids of their runs, or models:/NAME@ALIAS.
    """
    runs = [trial if isinstance(trial, str) else trial.run_id for trial in (first, second)]
    options, _ = read_arguments(CompareOptions, arguments)
    return answers_run.compare_answers(runs[0], runs[1], options)


def measure(folder: str | Path = "", **arguments: Unpack[MeasureArguments]) -> MeasuredExport:
    """Time an exported model beside the unquantized one, in the same engine."""
    options, _ = read_arguments(study_options.MeasureOptions, {**arguments, "path": folder})
    return run_measure(options, quiet=True)


def load_study(name: str, experiment: str = "", quantizer: str = "") -> Study:
    """A study that was logged to MLflow, whichever command ran it; InputError for another name.

    quantizer: which one, if the study (a comparison or curves) has several.
    """
    return logged_study.load_study(name, experiment, quantizer)


def allocation_of(bits: Allocation) -> BitAllocation:
    """An allocation from text, a mapping or itself."""
    if isinstance(bits, BitAllocation):
        return bits
    return BitAllocation.parse(bits) if isinstance(bits, str) else BitAllocation.of(bits)
