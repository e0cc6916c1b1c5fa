"""`mmq compare-quantizers`: errors, size, score and seconds of quantizers, side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from mmq.allocation.allocation import BitAllocation
from mmq.artifacts.layer_errors import Errors, output_errors
from mmq.cli.options import options_from
from mmq.cli.places import say_how_to_browse, say_where_saved
from mmq.cli.tables import aligned, interval, markdown, number
from mmq.contracts.report import mean_known
from mmq.studies.quantizer_study import (
    QuantizerStudy,
    QuantizerStudyOptions,
    Trial,
    opened,
    reporting,
)

HEAD = ("quantizer", "bits", "stored bpw", "weight error", "output error")


@click.command("compare-quantizers")
@options_from(QuantizerStudyOptions)
def compare_quantizers(chosen: QuantizerStudyOptions, extra: Mapping[str, str]) -> None:
    """Compare quantizers, every component at one width after another.

    Options such as --group-size 64 go to every quantizer that has them. Errors are averaged over
    layers; output errors are all measured on what layers read in the unquantized model. Seconds
    are what quantizing took when it was done; widths done together share them equally. The same
    command goes on after a kill.
    """
    with opened(chosen, chosen.quantizers, extra, "compare") as study:
        for artifacts in study.artifacts.values():
            for name in study.components:
                artifacts.fill(study.model, name, study.widths)
        pairs = next(iter(study.prepared.values())).pairs()
        errors = output_errors(study.model, pairs, study.artifacts, study.widths)
        descending = sorted(study.widths, reverse=True)
        uniform = [BitAllocation.uniform(study.components, bits) for bits in descending]
        trials = study.trials(uniform)
        rows = [_row(study, trial, errors) for trial in trials]
        floor = None if study.bounds is None else study.bounds[0]
        head = (*HEAD, trials[0].facts["primary"], "seconds")
        cells = [_cells(row) for row in rows]
        with reporting():
            study.run.log_table("comparison.json", rows)
            study.run.describe(
                f"{finding(rows, floor)}\n\n{markdown(head, cells)}{study.problem_text}"
            )
    click.echo(aligned(head, cells))
    click.echo(f"\n{finding(rows, floor)}{study.problem_text}")
    click.echo()
    say_where_saved()
    say_how_to_browse()
    click.echo(f"Open:      {study.run.run_link()}")


def _row(study: QuantizerStudy, trial: Trial, errors: Errors) -> dict[str, Any]:
    label, bits = trial.quantizer, trial.allocation[study.components[0]]
    layers = [each for name in study.components for each in errors.get((label, name, bits), [])]
    seconds = None
    if label:
        found = study.artifacts[label]
        seconds = sum(found.seconds(study.model, name, bits) for name in study.components)
    return {
        "quantizer": label or "unquantized",
        "bits": bits,
        "stored_bpw": trial.facts["size"]["stored_bpw"],
        "weight_error": trial.facts["errors"]["relative_error"],
        "output_error": mean_known(layers),
        "score": trial.score["value"],
        "low": trial.score["low"],
        "high": trial.score["high"],
        "seconds": seconds,
    }


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        row["quantizer"],
        str(row["bits"]),
        number(row["stored_bpw"]),
        number(row["weight_error"], 4),
        number(row["output_error"], 4),
        interval(row["score"], row["low"], row["high"]),
        number(row["seconds"], 1),
    ]


def finding(rows: Sequence[Mapping[str, Any]], floor: float | None = None) -> str:
    """One line: which quantizer scores best at every width, and whether that is beyond doubt.

    floor: the least score there is; who scores it is no better than the others.
    """
    parts = []
    for bits in dict.fromkeys(row["bits"] for row in rows if row["seconds"] is not None):
        some = sorted((r for r in rows if r["bits"] == bits), key=lambda r: -r["score"])
        score = some[0]["score"]
        best = [row for row in some if row["score"] == score]
        if floor is not None and score <= floor:
            parts.append(f"{bits} bits: none ({score:.4g} is the least there is)")
            continue
        rest = some[len(best) :]
        low = best[0]["low"]
        sure = all(r["high"] is not None and low is not None and r["high"] < low for r in rest)
        doubt = "" if sure or not rest else ", intervals overlap" if low is not None else (
            ", no interval"
        )  # fmt: skip
        names = " and ".join(row["quantizer"] for row in best)
        tied = "" if len(best) == 1 else ", tied"
        parts.append(f"{bits} bits: {names} ({score:.4g}{tied}{doubt})")
    return "Best score at " + "; ".join(parts)
