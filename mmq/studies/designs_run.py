"""Sweep, ablation and grid: studies of planned allocations."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmq.allocation.allocation import BitAllocation
from mmq.allocation.parts import names
from mmq.analysis.fronts import SIZE_AXIS_HELP, Point, parse_axis
from mmq.analysis.tradeoffs import pairs_figure, sweep_figure
from mmq.config import QUANTIZER_HELP, option
from mmq.studies import designs
from mmq.studies.figures import FIGURE_HELP, path_to_write, save_figure
from mmq.studies.front import publish
from mmq.studies.quantizer_study import PlannedOptions, opened, reporting
from mmq.studies.study import Study, study_of

Enumerate = Callable[[Sequence[str], Sequence[int]], Iterable[BitAllocation]]
Draw = Callable[[Sequence[Point], Sequence[str], str, str], Any]


@dataclass(frozen=True, slots=True)
class DesignOptions(PlannedOptions):
    """What to evaluate in a study of planned allocations by one quantizer."""

    quantizer: str = option("gptq", QUANTIZER_HELP)
    size_axis: str = option("stored", SIZE_AXIS_HELP)
    figure: str = option("", FIGURE_HELP)


@dataclass(frozen=True, slots=True)
class SweepOptions(DesignOptions):
    """What to evaluate in a sweep over all subsets of parts."""

    quantizer: str = option("uniform", QUANTIZER_HELP)
    bits: str = option("2,4,6,8", "Widths to try on all subsets of parts (e.g. 4,8).")


@dataclass(frozen=True, slots=True)
class AblateOptions(DesignOptions):
    """What to evaluate in an ablation of single components and pairs."""

    bits: str = option("2,3,4,5,6,8", "Widths of single components and of pairs (e.g. 3,4,8).")


@dataclass(frozen=True, slots=True)
class GridOptions(DesignOptions):
    """What to evaluate on the full grid."""

    bits: str = option("2,3,4,5,6,8,16", "Widths of every component (e.g. 3,4,16).")


@dataclass(frozen=True, slots=True)
class Design:
    """A kind of study: its command, its allocations, its figure, and its parts' granularity."""

    kind: str
    command: str
    allocations: Enumerate
    draw: Draw
    granularity: str = "component"


SWEEP = Design("sweep", "sweep-uniform", designs.sweep, sweep_figure, "fine")
ABLATION = Design("ablate", "ablate", designs.ablation, pairs_figure)
GRID = Design("grid", "grid", designs.grid, pairs_figure)


def run_design(design: Design, options: DesignOptions, plugin_options: Mapping[str, Any]) -> Study:
    """Evaluate all allocations of a design and log the front and the design's own figure."""
    path = path_to_write("figure", options.figure, ".png")
    axis = parse_axis(options.size_axis)
    kind, command = design.kind, design.command
    with opened(options, options.quantizer, plugin_options, kind, command) as study:
        study.run.parts = list(names(study.components, design.granularity))
        trials = study.trials(design.allocations(study.components, study.bits))
        result = study_of(
            study.name,
            [trial.record for trial in trials],
            study.clusters,
            study.run,
            axis,
            study.floor,
        )
        results = result.results
        with reporting():
            publish(study.run, results)
            samples = f"n = {len(study.clusters)}"
            about = ", ".join((options.model, options.task, options.quantizer, samples))
            figure = design.draw(results.points, study.components, results.score_name, about)
            save_figure(study.run, figure, f"{design.kind}.png", path)
    return result
