"""Sweep, ablation and grid: studies of planned allocations."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmq.allocation.allocation import BitAllocation
from mmq.allocation.parts import names
from mmq.analysis.fronts import Point, parse_axis
from mmq.analysis.theme import score_label
from mmq.analysis.tradeoffs import pairs_figure, sweep_figure
from mmq.studies import designs
from mmq.studies.figures import path_to_write, save_figure
from mmq.studies.front import publish
from mmq.studies.options import DesignOptions
from mmq.studies.quantizer_study import opened, reporting
from mmq.studies.study import Study, study_of

Enumerate = Callable[[Sequence[str], Sequence[int]], Iterable[BitAllocation]]
Draw = Callable[[Sequence[Point], Sequence[str], str, str], Any]


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
DESIGNS = {design.command: design for design in (SWEEP, ABLATION, GRID)}


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
            label = score_label(results.score_name, study.bounds)
            figure = design.draw(results.points, study.components, label, results.subject)
            save_figure(study.run, figure, f"{design.kind}.png", path)
    return result
