"""The commands sweep-uniform, ablate and grid: studies whose allocations are known beforehand."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from mmq.allocation.allocation import BitAllocation
from mmq.allocation.parts import names
from mmq.analysis.fronts import SIZE_AXIS_HELP, Point, SizeAxis, parse_axis
from mmq.analysis.tradeoffs import pairs_figure, sweep_figure
from mmq.cli.figures import FIGURE_HELP, path_to_write, save_figure
from mmq.cli.options import options_from
from mmq.cli.places import say_how_to_browse, say_where_saved
from mmq.config import QUANTIZER_HELP, option
from mmq.studies import designs
from mmq.studies.front import Results, conclusion, description, front_text, log_front
from mmq.studies.quantizer_study import PlannedOptions, QuantizerStudy, Trial, opened, reporting
from mmq.studies.records import primary_samples

Design = Callable[[Sequence[str], Sequence[int]], Iterable[BitAllocation]]
Draw = Callable[[Sequence[Point], Sequence[str], str, str], Any]


@dataclass(frozen=True, slots=True)
class SweepOptions(PlannedOptions):
    """A model and a task for the sweep over parts of the model."""

    quantizer: str = option("uniform", QUANTIZER_HELP)
    bits: str = option("2,4,6,8", "Widths, each tried on all subsets of parts.")
    size_axis: str = option("stored", SIZE_AXIS_HELP)
    figure: str = option("", FIGURE_HELP)


@dataclass(frozen=True, slots=True)
class AblateOptions(PlannedOptions):
    """A model and a task for single components and pairs."""

    quantizer: str = option("gptq", QUANTIZER_HELP)
    bits: str = option("2,3,4,5,6,8", "Widths of a single component, and of each one of a pair.")
    size_axis: str = option("stored", SIZE_AXIS_HELP)
    figure: str = option("", FIGURE_HELP)


@dataclass(frozen=True, slots=True)
class GridOptions(PlannedOptions):
    """A model and a task for the full grid."""

    quantizer: str = option("gptq", QUANTIZER_HELP)
    bits: str = option("2,3,4,5,6,8,16", "Widths of every component.")
    size_axis: str = option("stored", SIZE_AXIS_HELP)
    figure: str = option("", FIGURE_HELP)


@click.command("sweep-uniform")
@options_from(SweepOptions)
def sweep_uniform(chosen: SweepOptions, extra: Mapping[str, str]) -> None:
    """Each width on all subsets of components, block groups and layer types (algorithm 1).

    The same command goes on after a kill.
    """
    run_design(chosen, extra, "sweep", designs.sweep, sweep_figure, "fine")


@click.command("ablate")
@options_from(AblateOptions)
def ablate(chosen: AblateOptions, extra: Mapping[str, str]) -> None:
    """Each component alone at every width, and each pair at all pairs of widths.

    The same command goes on after a kill.
    """
    run_design(chosen, extra, "ablate", designs.ablation, pairs_figure)


@click.command("grid")
@options_from(GridOptions)
def grid(chosen: GridOptions, extra: Mapping[str, str]) -> None:
    """Every mixture of the widths over the components.

    The same command goes on after a kill.
    """
    run_design(chosen, extra, "grid", designs.grid, pairs_figure)


def run_design(
    chosen: SweepOptions | AblateOptions | GridOptions,
    extra: Mapping[str, str],
    kind: str,
    design: Design,
    draw: Draw,
    granularity: str = "component",
) -> None:
    """Run all allocations of a design and hand back the front, and the design's own figure."""
    figure = path_to_write("figure", chosen.figure, ".png")
    axis = parse_axis(chosen.size_axis)
    with opened(chosen, chosen.quantizer, extra, kind) as study:
        study.run.parts = list(names(study.components, granularity))
        trials = study.trials(design(study.components, study.bits))
        results = _results(study, trials, axis)
        found = results.answers()
        with reporting():
            study.run.describe(description(results, found))
            study.run.save_view(study.run.parts, results.score_name)
            log_front(study.run, results)
            about = (chosen.model, chosen.task, chosen.quantizer, f"n = {len(study.clusters)}")
            drawn = draw(results.points, study.components, results.score_name, ", ".join(about))
            save_figure(study.run, drawn, f"{kind}.png", figure)
    click.echo(
        f"\n{front_text(results.points, results.score_name)}\n\n{conclusion(results, found)}\n"
    )
    click.echo(f"Study:     {study.name}, {len(trials)} allocations")
    say_where_saved()
    say_how_to_browse()
    click.echo(f"Open:      {study.run.link()}")
    click.echo(f"Front:     {study.run.run_link()}")


def _results(study: QuantizerStudy, trials: Sequence[Trial], axis: SizeAxis) -> Results:
    by_allocation = {str(trial.allocation): trial.facts for trial in trials}

    def per_sample(allocation: str) -> Sequence[float] | None:
        return primary_samples(by_allocation[allocation])

    points = [
        Point(
            allocation=str(trial.allocation),
            bpw=trial.facts["size"]["bpw"],
            score=trial.score["value"],
            low=trial.score["low"],
            high=trial.score["high"],
            stored_bpw=trial.facts["size"]["stored_bpw"],
            run_id=trial.facts["run_id"],
            nominal=axis == "nominal",
        )
        for trial in trials
    ]
    name = trials[0].facts["primary"]
    floor = None if study.bounds is None else study.bounds[0]
    return Results(study.name, name, points, per_sample, study.clusters, floor=floor)
