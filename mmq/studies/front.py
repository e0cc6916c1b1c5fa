"""The results of a study: the verdict, and the front as table and figures."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mmq.analysis.budgets import Budget
from mmq.analysis.front_page import front_page
from mmq.analysis.fronts import Cost, Point, baseline, hypervolume, pareto_front, verdict
from mmq.analysis.gains import Gain, gain_over_rules
from mmq.analysis.joint import JointSamples
from mmq.analysis.plots import Highlights, front_figure, uniform_rules
from mmq.analysis.selection import Selection, select
from mmq.analysis.tables import markdown
from mmq.studies.front_tables import (
    cost_columns,
    interval_text,
    linked,
    number_text,
    rule_rows,
    rules_table,
    score_columns,
)

if TYPE_CHECKING:
    from mmq.tracking import StudyRun

TABLE = "front.json"
RULES_TABLE = "rules.json"


@dataclass(frozen=True, slots=True)
class Results:
    """A study's evaluated trials. clusters: the picture of every sample.

    per_sample: the score of every sample by allocation, None if the metric has none. floor: the
    lowest possible score, None if unknown. joint: the samples of a study of several tasks, in
    place of per_sample and clusters. subject: model, task, data and quantizer in words. rules:
    names of the rules of thumb by allocation.
    """

    name: str
    score_name: str
    points: Sequence[Point]
    per_sample: Callable[[str], Sequence[float] | None]
    clusters: Sequence[str]
    budget: Budget = field(default_factory=Budget)
    parameters: int = 0  # of the model; needed if the budget is in GiB
    floor: float | None = None
    joint: JointSamples | None = None
    subject: str = ""
    rules: Mapping[str, str] = field(default_factory=dict)

    @property
    def gain(self) -> Gain | None:
        """The gain of the study over the best rule of thumb; None if none is evaluated."""
        return gain_over_rules(
            self.points,
            self.rules,
            self.budget,
            self.parameters,
            self.per_sample,
            self.clusters,
            self.floor,
            self.joint,
        )

    def fits(self, point: Point) -> bool:
        """Whether a point is within the bounds on the size."""
        return self.budget.fits(point, self.parameters)

    def rule_points(self) -> list[tuple[str, Point]]:
        """The evaluated rules of thumb with their names, smallest first."""
        points = [p for p in self.points if p.allocation in self.rules and not p.is_unquantized]
        return [(self.rules[p.allocation], p) for p in sorted(points, key=lambda p: p.size)]

    def selections(self, budget: Budget | None = None) -> list[Selection]:
        """The selections by this budget, the study's own if None; see `select`."""
        return select(
            self.points,
            budget or self.budget,
            self.parameters,
            self.per_sample,
            self.clusters,
            self.floor,
            self.joint,
        )

    @property
    def bounded(self) -> bool:
        """Whether the budget has a bound, or is the default: the smallest within 1%."""
        budget = self.budget
        return budget.sized or budget.scored or budget.max_flips is not None


def conclusion(results: Results, selections: Sequence[Selection] | None = None) -> str:
    """The gain of a search over the rules of thumb, then the verdict or the selections.

    selections: those of the results, if already computed.
    """
    selections = results.selections() if selections is None else selections
    gain = results.gain
    text = _selected(results, selections)
    return text if gain is None else f"{gain.text}\n\n{text}"


def _selected(results: Results, selections: Sequence[Selection]) -> str:
    """The verdict, or the selections by the budget, and how certain they are."""
    if results.bounded:
        return "\n\n".join(selection.text for selection in selections)
    first = selections[0]
    line = verdict(results.points, first.chance, results.floor)
    if baseline(results.points) is None or (first.point is None and not first.sureness):
        return line
    return f"{line}\n\n{first.sureness}"


def title(results: Results, selections: Sequence[Selection]) -> str:
    """The title of a study's figure: the selections, then what was evaluated."""
    if results.bounded:
        lines = [selection.caption for selection in selections]
    else:
        lines = [verdict(results.points, selections[0].chance, results.floor)]
    return "\n".join([*lines, results.subject or results.name])


def description(
    results: Results,
    selections: Sequence[Selection] | None = None,
    link: Callable[[Point], str] = lambda _: "",
) -> str:
    """The conclusion, then the front; Markdown. link: the address of a trial's run."""
    lines = [conclusion(results, selections)]
    front = pareto_front(results.points)
    lines.append(f"\n{len(results.points)} allocations evaluated, {len(front)} on the front:\n")
    costs, more = cost_columns(front), score_columns(front)
    heads = "".join(f" {head} |" for head in costs)
    last = "".join(f" {head} |" for head in more)
    lines.append(
        f"| allocation |{heads} stored bpw | nominal bpw | {results.score_name} | 95% interval "
        f"|{last}"
    )
    lines.append(f"|---|{'---|' * len(costs)}---|---|---|---|{'---|' * len(more)}")
    for p in front:
        cells = [linked(p.allocation, link(p)), *(value(p) for value in costs.values())]
        cells += [number_text(p.stored_bpw), f"{p.bpw:.3f}", f"{p.score:.4g}", interval_text(p)]
        cells += [value(p) for value in more.values()]
        lines.append(f"| {' | '.join(cells)} |")
    if results.rule_points():
        lines.append(f"\n{markdown(*rules_table(results))}")
    return "\n".join(lines)


def publish(run: "StudyRun", results: Results, interactive: bool = True) -> None:
    """Show a study in MLflow: description, chart view, tags of the front's trials, and files."""
    run.describe(description(results, link=run.trial_link))
    run.mark_front(results.points)
    run.save_view(results.points, results.score_name, baseline(results.points) is not None)
    log_front(run, results, interactive)


def progress_metrics(results: Results, selection: Selection | None) -> dict[str, float]:
    """Metrics of a study so far: trials, the front's size and hypervolume, the selected model."""
    points = results.points
    metrics: dict[str, float] = {
        "trials": len(points), "front_size": len(pareto_front(points)),
    }  # fmt: skip
    if (volume := hypervolume(points, results.floor)) is not None:
        metrics["hypervolume"] = volume
    if selection is None or (point := selection.point) is None:
        return metrics
    metrics |= {"selection_bpw": round(point.bpw, 4), "selection_score": round(point.score, 4)}
    if point.stored_bpw is not None:
        metrics["selection_stored_bpw"] = round(point.stored_bpw, 4)
    if point.cost is not None:
        metrics |= {f"selection_{k}": v for k, v in cost_metrics(point.cost).items()}
    return metrics


def log_progress(run: "StudyRun", results: Results) -> None:
    """Log the metrics of a study after a trial; its number is their step."""
    budget, floor = results.budget, results.floor
    selections = select(results.points, budget, results.parameters, lambda _: None, [], floor)
    metrics = progress_metrics(results, _first(selections))
    run.log(metrics=metrics, step=len(results.points))


def _first(selections: Sequence[Selection]) -> Selection | None:
    return next((selection for selection in selections if selection.point is not None), None)


def log_front(run: "StudyRun", results: Results, interactive: bool = True) -> None:
    """The front as table, PNG, metrics and, if interactive, offline plot (4.6 MB) of the run."""
    points, score_name = results.points, results.score_name
    if not points:
        return
    selections = results.selections()
    front, heading = pareto_front(points), title(results, selections)
    highlights = Highlights(
        selections,
        results.budget.largest(points[0], results.parameters),
        results.budget.least_score(points),
        "bpw" if points[0].cost is None else points[0].unit,
        dict(results.rule_points()) or uniform_rules(points),
    )
    has_flips = any(p.flips is not None for p in front)
    rows = [
        {
            "allocation": p.allocation,
            "bpw": round(p.bpw, 4),
            "stored_bpw": None if p.stored_bpw is None else round(p.stored_bpw, 4),
            **({} if p.cost is None else _cost_row(p.cost)),
            p.objective: round(p.score, 4),
            "low": None if p.low is None else round(p.low, 4),
            "high": None if p.high is None else round(p.high, 4),
            **_task_row(p),
            **(_flip_row(p) if has_flips else {}),
            "run": p.run_id,
            "rule": results.rules.get(p.allocation, ""),
        }
        for p in front
    ]
    run.log_table(TABLE, rows)
    if results.rule_points():
        run.log_table(RULES_TABLE, rule_rows(results))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        front_figure(points, score_name, heading, highlights).savefig(folder / "front.png")
        if interactive:
            link = run.trial_link
            page = front_page(points, score_name, heading, highlights, results.parameters, link)
            (folder / "front.html").write_text(page, encoding="utf-8")
        run.log_folder(folder)
    run.log(metrics=progress_metrics(results, _first(selections)), step=len(points))


def cost_metrics(cost: Cost) -> dict[str, float]:
    """A target's cost as metrics of a run: bytes of the files in GiB, ms per answer."""
    time = {} if cost.ms is None else {"latency/ms": round(cost.ms, 6)}
    return {"size/target_gib": round(cost.gib, 9)} | time


def _task_row(point: Point) -> dict[str, float | str]:
    row: dict[str, float | str] = {}
    for task in point.tasks:
        row |= {task.label: round(task.score, 4), f"{task.label} share": round(task.share, 2)}
    return row | {"binds": point.binding} if row else {}


def _flip_row(point: Point) -> dict[str, float | None]:
    names = ("flips", "flips_low", "flips_high")
    values = point.flips or (None, None, None)  # all rows of a table have the same columns
    rounded = (None if value is None else round(value, 4) for value in values)
    return dict(zip(names, rounded, strict=True))


def _cost_row(cost: Cost) -> dict[str, float]:
    time = {} if cost.ms is None else {"ms_per_answer": float(f"{cost.ms:.5g}")}
    return {"target_gib": float(f"{cost.gib:.5g}")} | time
