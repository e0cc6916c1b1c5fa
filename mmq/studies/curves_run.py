"""Curves: the score against the bits of each component alone, and of all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mmq.analysis.curves import CurvePoint, Reference, curves_figure, grouped, holding_width
from mmq.analysis.tables import markdown
from mmq.analysis.theme import score_label
from mmq.studies.designs import curves as design
from mmq.studies.figures import path_to_write, save_figure
from mmq.studies.options import CurvesOptions
from mmq.studies.quantizer_study import Trial, opened, reporting

SHARE = 0.99  # share of the unquantized score that a width must keep


@dataclass(frozen=True, slots=True)
class Curves:
    """The points of all curves, and the unquantized score that they approach.

    problem_text: which quantizers were not used, and why.
    """

    study: str
    score_name: str
    points: Sequence[CurvePoint]
    unquantized: Reference
    problem_text: str
    run_id: str
    url: str

    def least_bits(self, share: float = SHARE) -> dict[tuple[str, str], int | None]:
        """By (part, quantizer), the least width from which on this share of the score is retained.

        None if no width on the curve retains it.
        """
        score = self.unquantized.score
        return {
            curve: holding_width(points, score, share)
            for curve, points in grouped(self.points).items()
        }


def run_curves(options: CurvesOptions, plugin_options: Mapping[str, Any]) -> Curves:
    """Trace the score against the bits of each component alone, and of all at once."""
    path = path_to_write("figure", options.figure, ".png")
    with opened(options, options.quantizers, plugin_options, "curves", "curves") as study:
        places = {
            allocation: (part, bits)
            for part, bits, allocation in design(study.components, study.widths)
        }
        reference, *trials = study.trials(list(places))
        score = reference.record.score
        curves = Curves(
            study.name,
            reference.record.primary,
            [_point(trial, *places[trial.allocation]) for trial in trials],
            Reference(score.value, score.low, score.high, n=score.n),
            study.problem_text,
            study.run.run_id,
            study.run.run_link(),
        )
        title = reference.record.spec.eval_spec.setting
        label = score_label(curves.score_name, study.bounds)
        figure = curves_figure(curves.points, curves.unquantized, label, title)
        with reporting():
            save_figure(study.run, figure, "curves.png", path)
            study.run.log_table("curves.json", [asdict(point) for point in curves.points])
            study.run.describe(f"{heading(curves)}\n\n{markdown(*least_table(curves))}"
                               f"{curves.problem_text}")  # fmt: skip
    return curves


def heading(curves: Curves) -> str:
    """The caption of the table of smallest widths."""
    return (
        f"Smallest widths that keep {SHARE:.0%} of the unquantized {curves.unquantized.score:.4g} "
        "on these samples; intervals are in the figure"
    )


def least_table(curves: Curves) -> tuple[tuple[str, ...], list[list[str]]]:
    """One row per part, one column per quantizer: the least width that retains the score."""
    least = curves.least_bits()
    names = list(dict.fromkeys(name for _, name in least))
    rows = []
    for part in dict.fromkeys(part for part, _ in least):
        widths = [least.get((part, name)) for name in names]
        rows.append([part, *("more" if bits is None else str(bits) for bits in widths)])
    return ("part", *names), rows


def _point(trial: Trial, part: str, bits: int) -> CurvePoint:
    score = trial.record.score
    return CurvePoint(trial.quantizer, part, bits, score.value, score.low, score.high)
