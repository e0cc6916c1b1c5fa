"""What a study hands back: the verdict, the front as table and figures, the way to look at it."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mmq.analysis.budgets import Budget
from mmq.analysis.fronts import Point, baseline, pareto_front, verdict
from mmq.analysis.plots import Asked, front_figure, front_plot
from mmq.analysis.selection import Answer, answers

if TYPE_CHECKING:
    from mmq.tracking import StudyRun

TABLE = "front.json"


@dataclass(frozen=True, slots=True)
class Results:
    """A study's evaluated trials. clusters: the picture of every sample.

    per_sample: a trial's score of every sample, by its allocation, where its metric has one.
    floor: the least score there is, where that is known.
    """

    name: str
    score_name: str
    points: Sequence[Point]
    per_sample: Callable[[str], Sequence[float] | None]
    clusters: Sequence[str]
    budget: Budget = field(default_factory=Budget)
    parameters: int = 0  # of the model; needed where the budget is in GiB
    floor: float | None = None

    def answers(self) -> list[Answer]:
        """What the budget asks for, or the smallest within 1%."""
        return answers(
            self.points,
            self.budget,
            self.parameters,
            self.per_sample,
            self.clusters,
            self.floor,
        )

    @property
    def bounded(self) -> bool:
        """Whether something was asked, other than the smallest within 1%."""
        return self.budget.sized or self.budget.scored


def conclusion(results: Results, found: Sequence[Answer] | None = None) -> str:
    """The verdict, or the answers to what was asked, and how sure they are.

    found: the results' answers, where they are there already.
    """
    found = results.answers() if found is None else found
    if results.bounded:
        return "\n\n".join(answer.text for answer in found)
    said = verdict(results.points, found[0].chance, results.floor)
    if baseline(results.points) is None or (found[0].point is None and not found[0].sureness):
        return said
    return f"{said}\n\n{found[0].sureness}"


def title(results: Results, found: Sequence[Answer]) -> str:
    """What the figure of a study is called: the answers, then the study's name."""
    if results.bounded:
        lines = [answer.headline for answer in found]
    else:
        lines = [verdict(results.points, found[0].chance, results.floor)]
    return "\n".join([*lines, results.name])


def description(results: Results, found: Sequence[Answer] | None = None) -> str:
    """The conclusion, then the front; Markdown."""
    lines = [conclusion(results, found)]
    front = pareto_front(results.points)
    lines.append(f"\n{len(results.points)} allocations evaluated, {len(front)} on the front:\n")
    lines.append(
        f"| allocation | stored bpw | nominal bpw | {results.score_name} | 95% interval |"
    )
    lines.append("|---|---|---|---|---|")
    lines += [
        f"| {p.allocation} | {_number(p.stored_bpw)} | {p.bpw:.3f} | {p.score:.4g} "
        f"| {_interval(p)} |"
        for p in front
    ]
    return "\n".join(lines)


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
    head = f"{'allocation':<{width}}  {'stored':>7}  {'nominal':>7}  {score_name} (95% interval)"
    rows = [
        f"{p.allocation:<{width}}  {_number(p.stored_bpw):>7}  {p.bpw:7.3f}  "
        f"{p.score:.4g} ({_interval(p)})"
        for p in front
    ]
    return "\n".join([head, *rows])


def log_front(run: "StudyRun", results: Results, interactive: bool = True) -> None:
    """The front as table, PNG, metrics and, if interactive, offline plot (4.6 MB) of the run."""
    points, score_name = results.points, results.score_name
    if not points:
        return
    found = results.answers()
    front, heading = pareto_front(points), title(results, found)
    shown = Asked(
        found,
        results.budget.largest(points[0].nominal, results.parameters),
        results.budget.least_score(points),
    )
    rows = [
        {
            "allocation": p.allocation,
            "bpw": round(p.bpw, 4),
            "stored_bpw": None if p.stored_bpw is None else round(p.stored_bpw, 4),
            "score": round(p.score, 4),
            "low": None if p.low is None else round(p.low, 4),
            "high": None if p.high is None else round(p.high, 4),
            "run": p.run_id,
        }
        for p in front
    ]
    run.log_table(TABLE, rows)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        front_figure(points, score_name, heading, shown).savefig(folder / "front.png")
        if interactive:
            plot = front_plot(points, score_name, heading.replace("\n", "<br>"), shown)
            plot.write_html(folder / "front.html")
        run.log_folder(folder)
    metrics: dict[str, float] = {"trials": len(points), "front_size": len(front)}
    chosen = next((answer.point for answer in found if answer.point is not None), None)
    if chosen is not None:
        metrics |= {"chosen_bpw": round(chosen.bpw, 4), "chosen_score": round(chosen.score, 4)}
        if chosen.stored_bpw is not None:
            metrics["chosen_stored_bpw"] = round(chosen.stored_bpw, 4)
    run.log(metrics=metrics)
