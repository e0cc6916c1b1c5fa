"""`mmq curves`: the score against the bits of each component alone, and of all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import click

from mmq.analysis.curves import (
    CurvePoint,
    Reference,
    curves_figure,
    grouped,
    holding_width,
)
from mmq.cli.figures import FIGURE_HELP, path_to_write, save_figure
from mmq.cli.options import options_from
from mmq.cli.places import say_how_to_browse, say_where_saved
from mmq.cli.tables import aligned, markdown
from mmq.config import option
from mmq.studies.designs import curves as design
from mmq.studies.quantizer_study import QuantizerStudyOptions, Trial, opened, reporting

SHARE = 0.99  # of the unquantized score that counts as held


@dataclass(frozen=True, slots=True)
class CurvesOptions(QuantizerStudyOptions):
    """A model and a task, the quantizers, the widths, and where the figure goes."""

    quantizers: str = option("uniform,rtn,gptq,awq", "Quantizers, a curve each.")
    bits: str = option("2,3,4,5,6,8", "Widths along the curves.")
    figure: str = option("", FIGURE_HELP)


@click.command("curves")
@options_from(CurvesOptions)
def curves(chosen: CurvesOptions, extra: Mapping[str, str]) -> None:
    """Trace the score against the bits of each component alone, and of all at once.

    Options such as --group-size 64 go to every quantizer that has them. The same command goes on
    after a kill.
    """
    figure = path_to_write("figure", chosen.figure, ".png")
    with opened(chosen, chosen.quantizers, extra, "curves") as study:
        places = {
            allocation: (part, bits)
            for part, bits, allocation in design(study.components, study.widths)
        }
        reference, *trials = study.trials(list(places))
        points = [_point(trial, *places[trial.allocation]) for trial in trials]
        unquantized = Reference(**_score(reference), n=int(reference.score["n"]))
        head, cells = _table(points, unquantized.score)
        name = reference.facts["primary"]
        said = (
            f"Least bits that keep {SHARE:.0%} of the unquantized {unquantized.score:.4g} on "
            "these samples; intervals are in the figure"
        )
        drawn = curves_figure(points, unquantized, name, f"{chosen.model}, {chosen.task}")
        with reporting():
            save_figure(study.run, drawn, "curves.png", figure)
            study.run.log_table("curves.json", [asdict(point) for point in points])
            study.run.describe(f"{said}\n\n{markdown(head, cells)}{study.problem_text}")
    click.echo(f"{said} ({name}, n = {unquantized.n}):\n\n{aligned(head, cells)}")
    click.echo(study.problem_text)
    say_where_saved()
    say_how_to_browse()
    click.echo(f"Open:      {study.run.run_link()}")


def _score(trial: Trial) -> dict[str, float]:
    found = trial.score
    return {"score": found["value"], "low": found["low"], "high": found["high"]}


def _point(trial: Trial, part: str, bits: int) -> CurvePoint:
    return CurvePoint(trial.quantizer, part, bits, **_score(trial))


def _table(
    points: Sequence[CurvePoint], reference: float
) -> tuple[tuple[str, ...], list[list[str]]]:
    """A line a part, a column a quantizer: from which width on the score is held."""
    by_curve = grouped(points)
    names = list(dict.fromkeys(name for _, name in by_curve))
    rows = []
    for part in dict.fromkeys(part for part, _ in by_curve):
        found = [holding_width(by_curve.get((part, name), []), reference, SHARE) for name in names]
        rows.append([part, *("more" if bits is None else str(bits) for bits in found)])
    return ("part", *names), rows
