"""Comparison of quantizers: errors, sizes, scores and seconds side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mmq.allocation.allocation import BitAllocation
from mmq.analysis.tables import interval, markdown, number
from mmq.artifacts.layer_errors import Errors, output_errors
from mmq.contracts.report import mean_known
from mmq.studies.options import QuantizerStudyOptions
from mmq.studies.quantizer_study import QuantizerStudy, Trial, opened, reporting
from mmq.system.worker import is_worker


@dataclass(frozen=True, slots=True)
class Row:
    """A quantizer at one width. Errors are means over the layers.

    output_error: measured on what the layers read in the unquantized model, for all quantizers
    alike. seconds: of quantizing; None for the unquantized model.
    """

    quantizer: str
    bits: int
    stored_bpw: float | None
    weight_error: float | None
    output_error: float | None
    score: float
    low: float | None
    high: float | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows, the unquantized model first. problem_text: which quantizers were not used."""

    study: str
    score_name: str
    rows: Sequence[Row]
    floor: float | None
    problem_text: str
    run_id: str
    url: str

    @property
    def finding(self) -> str:
        """Which quantizer scores best at every width, in one line."""
        return finding(self.rows, self.floor)

    @property
    def table(self) -> tuple[tuple[str, ...], list[list[str]]]:
        """Head and cells of the table."""
        head = ("quantizer", "bits", "stored bpw", "weight error", "output error")
        return (*head, self.score_name, "seconds"), [_cells(row) for row in self.rows]


def run_comparison(
    options: QuantizerStudyOptions, plugin_options: Mapping[str, Any]
) -> Comparison:
    """Evaluate every component at one width after another with each quantizer."""
    names, command = options.quantizers, "compare-quantizers"
    with opened(options, names, plugin_options, "compare", command) as study:
        descending = sorted(study.widths, reverse=True)
        allocations = [BitAllocation.uniform(study.components, b) for b in descending]
        if is_worker() or study.placed is not None:
            study.trials(allocations)  # by the workers, before this process loads the model
        model = study.first.model
        artifacts = {label: session.artifacts for label, session in study.sessions.items()}
        for store in artifacts.values():
            for name in study.components:
                store.fill(model, name, study.widths)
        pairs = study.first.prepared.pairs()
        errors = output_errors(model, pairs, artifacts, study.widths)
        trials = study.trials(allocations)
        comparison = Comparison(
            study.name,
            trials[0].record.primary,
            [_row(study, trial, errors) for trial in trials],
            study.floor,
            study.problem_text,
            study.run.run_id,
            study.run.run_link(),
        )
        with reporting():
            study.run.log_table("comparison.json", [asdict(row) for row in comparison.rows])
            text = (
                f"{comparison.finding}\n\n{markdown(*comparison.table)}{comparison.problem_text}"
            )
            study.run.describe(text)
    return comparison


def _row(study: QuantizerStudy, trial: Trial, errors: Errors) -> Row:
    label, bits = trial.quantizer, trial.allocation[study.components[0]]
    layers = [error for name in study.components for error in errors.get((label, name, bits), [])]
    seconds = None
    if label:
        session = study.sessions[label]
        seconds = sum(
            session.artifacts.seconds(session.model, name, bits) for name in study.components
        )
    record = trial.record
    return Row(
        quantizer=label or "unquantized",
        bits=bits,
        stored_bpw=record.size.stored_bpw,
        weight_error=record.layer_errors["relative_error"],
        output_error=mean_known(layers),
        score=record.score.value,
        low=record.score.low,
        high=record.score.high,
        seconds=seconds,
    )


def _cells(row: Row) -> list[str]:
    return [
        row.quantizer,
        str(row.bits),
        number(row.stored_bpw),
        number(row.weight_error, 4),
        number(row.output_error, 4),
        interval(row.score, row.low, row.high),
        number(row.seconds, 1),
    ]


def finding(rows: Sequence[Row], floor: float | None = None) -> str:
    """One line: which quantizer scores best at every width, and whether that is certain.

    floor: the lowest possible score; a quantizer that scores it is not better than the others.
    """
    parts = []
    for bits in dict.fromkeys(row.bits for row in rows if row.seconds is not None):
        same_width = sorted((r for r in rows if r.bits == bits), key=lambda r: -r.score)
        score = same_width[0].score
        best = [row for row in same_width if row.score == score]
        if floor is not None and score <= floor:
            parts.append(f"{bits} bits: none ({score:.4g} is the lowest possible score)")
            continue
        rest, low = same_width[len(best) :], best[0].low
        sure = all(r.high is not None and low is not None and r.high < low for r in rest)
        doubt = "" if sure or not rest else ", intervals overlap" if low is not None else (
            ", no interval"
        )  # fmt: skip
        names = " and ".join(row.quantizer for row in best)
        tied = "" if len(best) == 1 else ", tied"
        parts.append(f"{bits} bits: {names} ({score:.4g}{tied}{doubt})")
    return "Best score at " + "; ".join(parts)
