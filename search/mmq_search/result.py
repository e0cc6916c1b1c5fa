"""The result of a search: the front, the selected allocations, and links."""

from dataclasses import asdict
from typing import Any

import click

from mmq.analysis.fronts import pareto_front
from mmq.cli.places import print_how_to_browse, print_json, print_where_saved
from mmq.studies.front import conclusion
from mmq.studies.front_tables import result_text, rule_rows
from mmq.system.progress import notify
from mmq.tracking import best_effort, register
from mmq_search.loop import Search


def print_document(running: Search) -> None:
    """Print the result as one JSON document; the selected allocations are registered, too."""
    study, run, results = running.study, running.run, running.results()
    selections = []
    for selection in results.selections():
        row: dict[str, Any] = {
            "criterion": selection.criterion,
            "allocation": None if selection.point is None else selection.point.allocation,
            "chance": selection.chance,
            "text": selection.text,
        }
        if selection.point is not None:
            with best_effort(f"{selection.criterion}: the model is not registered"):
                row["registered"] = register(run, selection)
        selections.append(row)
    print_json(
        {
            "study": study.name,
            "conclusion": conclusion(results),
            "gain": None if (gain := results.gain) is None else gain.to_json(),
            "rules": rule_rows(results),
            "score_name": study.score_name,
            "selected": selections,
            "trials": [asdict(point) for point in results.points],
            "front": [point.allocation for point in pareto_front(results.points)],
            "pruned": list(study.pruned()),
            "not_evaluated": list(study.setup.measured_sizes),
            "confirmed": [str(model) for model in running.confirmed],
            "run_id": run.run_id,
            "url": run.link(),
            "run_url": run.run_link(),
        }
    )


def print_plan(plan: str, as_json: bool) -> None:
    """Print what a dry run would start."""
    if as_json:
        print_json({"would_start": plan.splitlines()})
    else:
        click.echo(plan)


def print_results(running: Search) -> None:
    """Print the front, the selected allocations, their registered versions, and links."""
    study, run, results = running.study, running.run, running.results()
    selections = results.selections()
    text = conclusion(results, selections)
    if not study.space.has_baseline:
        text += "\n\nThe unquantized model was evaluated for comparison; it is not a trial."
    if too_large := len(study.setup.measured_sizes):
        text += f"\n\nNot evaluated: {too_large}, larger than planned and than the bound."
    if pruned := len(study.pruned()):
        text += f"\n\nPruned: {pruned} allocations that a smaller model certainly dominates."
    notify("")
    click.echo(f"{text}\n\n{result_text(results)}\n")
    if running.confirmed:
        click.echo("\n".join(["Timed as whole models:", *map(str, running.confirmed), ""]))
    target = running.search.request.name if running.search is not None else "TARGET"
    for selection in selections:
        if selection.point is not None:
            with best_effort(f"{selection.criterion}: the model is not registered"):
                address = register(run, selection)
                click.echo(f"{selection.criterion}: mmq trial --run {address}")
                click.echo(f"Export it: mmq export --run {address} --target {target} --out FOLDER")
    print_where_saved()
    print_how_to_browse()
    click.echo(f"Open:      {run.link()}")
    click.echo(f"Front:     {run.plot_link()}")
    click.echo(f"Run:       {run.run_link()}")
