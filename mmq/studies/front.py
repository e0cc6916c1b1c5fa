"""The results of a study: the verdict, and the front as table and figures."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mmq.analysis.budgets import Budget
from mmq.analysis.fronts import Cost, Point, baseline, pareto_front, verdict
from mmq.analysis.gains import Gain, best_of_size, gain_over_rules
from mmq.analysis.plots import Highlights, front_figure, front_plot
from mmq.analysis.selection import Selection, select
from mmq.analysis.tables import markdown

if TYPE_CHECKING:
    from mmq.tracking import StudyRun

TABLE = "front.json"
RULES_TABLE = "rules.json"


@dataclass(frozen=True, slots=True)
class Results:
    """A study's evaluated trials. clusters: the picture of every sample.

    per_sample: the score of every sample by allocation, None if the metric has none. floor: the
    lowest possible score, None if unknown. rules: names of the rules of thumb by allocation.
    """

    name: str
    score_name: str
    points: Sequence[Point]
    per_sample: Callable[[str], Sequence[float] | None]
    clusters: Sequence[str]
    budget: Budget = field(default_factory=Budget)
    parameters: int = 0  # of the model; needed if the budget is in GiB
    floor: float | None = None
    rules: Mapping[str, str] = field(default_factory=dict)

    @property
    def gain(self) -> Gain | None:
        """What the study gained over the best rule of thumb; None if none is evaluated."""
        return gain_over_rules(
            self.points,
            self.rules,
            self.budget,
            self.parameters,
            self.per_sample,
            self.clusters,
            self.floor,
        )

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
        )

    @property
    def bounded(self) -> bool:
        """Whether the budget has a bound, or is the default: the smallest within 1%."""
        return self.budget.sized or self.budget.scored


def conclusion(results: Results, selections: Sequence[Selection] | None = None) -> str:
    """What a search gained over the rules of thumb, then the verdict or the selections.

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
    """The title of a study's figure: the selections, then the study's name."""
    if results.bounded:
        lines = [selection.headline for selection in selections]
    else:
        lines = [verdict(results.points, selections[0].chance, results.floor)]
    return "\n".join([*lines, results.name])


def description(results: Results, selections: Sequence[Selection] | None = None) -> str:
    """The conclusion, then the front; Markdown."""
    lines = [conclusion(results, selections)]
    front = pareto_front(results.points)
    lines.append(f"\n{len(results.points)} allocations evaluated, {len(front)} on the front:\n")
    costs = cost_columns(front)
    heads = "".join(f" {head} |" for head in costs)
    lines.append(
        f"| allocation |{heads} stored bpw | nominal bpw | {results.score_name} | 95% interval |"
    )
    lines.append(f"|---|{'---|' * len(costs)}---|---|---|---|")
    lines += [
        f"| {p.allocation} |{''.join(f' {value(p)} |' for value in costs.values())} "
        f"{_number(p.stored_bpw)} | {p.bpw:.3f} | {p.score:.4g} "
        f"| {_interval(p)} |"
        for p in front
    ]
    if results.rule_points():
        lines.append(f"\n{markdown(*rules_table(results))}")
    return "\n".join(lines)


def rules_table(results: Results) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Head and rows: each rule of thumb, and the best that was evaluated of at most its size."""
    head = ("rule of thumb", "allocation", "size", f"{results.score_name} (95% interval)")
    rows = []
    for name, point in results.rule_points():
        best = best_of_size(results.points, point)
        better = "-" if best == point else f"{best.allocation} {best.score:.4g}"
        scored = f"{point.score:.4g} ({_interval(point)})"
        rows.append((name, point.allocation, point.compared_text, scored, better))
    return (*head, "best of no more bytes"), rows


def cost_columns(points: Sequence[Point]) -> dict[str, Callable[[Point], str]]:
    """Heads and texts of the columns of a table for the costs of an export target, if any."""
    cost = points[0].cost if points else None
    if cost is None:
        return {}
    columns: dict[str, Callable[[Point], str]] = {f"GiB as {cost.target}": _gib}
    if cost.ms is not None:
        columns = {f"{cost.unit}, {cost.machine}": _ms} | columns
    return columns


def _gib(point: Point) -> str:
    return "" if point.cost is None else f"{point.cost.gib:.4g}"


def _ms(point: Point) -> str:
    return "" if point.cost is None or point.cost.ms is None else f"{point.cost.ms:.4g}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _interval(point: Point) -> str:
    if point.low is None or point.high is None:
        return "no interval"
    return f"{point.low:.4g} to {point.high:.4g}"


def front_text(points: Sequence[Point], score_name: str) -> str:
    """The front as a plain table for the terminal."""
    front = pareto_front(points)
    width = max([len(p.allocation) for p in front] + [10])
    costs = cost_columns(front)
    heads = "".join(f"  {head}" for head in costs)
    head = f"{'allocation':<{width}}{heads}  {'stored':>7}  {'nominal':>7}"
    head += f"  {score_name} (95% interval)"
    rows = [
        f"{p.allocation:<{width}}"
        f"{''.join(f'  {value(p):>{len(head)}}' for head, value in costs.items())}"
        f"  {_number(p.stored_bpw):>7}  {p.bpw:7.3f}  "
        f"{p.score:.4g} ({_interval(p)})"
        for p in front
    ]
    return "\n".join([head, *rows])


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
    )
    rows = [
        {
            "allocation": p.allocation,
            "bpw": round(p.bpw, 4),
            "stored_bpw": None if p.stored_bpw is None else round(p.stored_bpw, 4),
            **({} if p.cost is None else _cost_row(p.cost)),
            "score": round(p.score, 4),
            "low": None if p.low is None else round(p.low, 4),
            "high": None if p.high is None else round(p.high, 4),
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
            plot = front_plot(points, score_name, heading.replace("\n", "<br>"), highlights)
            plot.write_html(folder / "front.html")
        run.log_folder(folder)
    metrics: dict[str, float] = {"trials": len(points), "front_size": len(front)}
    selected = next(
        (selection.point for selection in selections if selection.point is not None), None
    )
    if selected is not None:
        metrics |= {"chosen_bpw": round(selected.bpw, 4), "chosen_score": round(selected.score, 4)}
        if selected.stored_bpw is not None:
            metrics["chosen_stored_bpw"] = round(selected.stored_bpw, 4)
        if selected.cost is not None:
            metrics |= {f"chosen_{k}": v for k, v in cost_metrics(selected.cost).items()}
    run.log(metrics=metrics)


def rule_rows(results: Results) -> list[dict[str, object]]:
    """The rules of thumb as rows, each with the best that was evaluated of at most its size."""
    rows: list[dict[str, object]] = []
    for name, point in results.rule_points():
        best = best_of_size(results.points, point)
        rows.append(
            {
                "rule": name,
                "allocation": point.allocation,
                "size": round(point.size, 4),
                "score": round(point.score, 4),
                "low": point.low,
                "high": point.high,
                "best": best.allocation,
                "best_score": round(best.score, 4),
                "run": point.run_id,
            }
        )
    return rows


def cost_metrics(cost: Cost) -> dict[str, float]:
    """A target's cost as metrics of a run: bytes of the files in GiB, ms per answer."""
    time = {} if cost.ms is None else {"latency/ms": round(cost.ms, 6)}
    return {"size/target_gib": round(cost.gib, 9)} | time


def _cost_row(cost: Cost) -> dict[str, float]:
    time = {} if cost.ms is None else {"ms_per_answer": float(f"{cost.ms:.5g}")}
    return {"target_gib": float(f"{cost.gib:.5g}")} | time
