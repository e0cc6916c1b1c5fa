"""What a study hands back: the verdict, the front as table and figures, the way to look at it."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mmq.analysis.answers import Answer, Budget, answers
from mmq.analysis.fronts import Point, pareto_front, smallest_keeping, verdict
from mmq.analysis.plots import front_figure, front_plot

if TYPE_CHECKING:
    from mmq.tracking import StudyRun

TABLE = "front.json"


@dataclass(frozen=True, slots=True)
class Results:
    """A study's evaluated trials. clusters: the picture of every sample.

    per_sample: a trial's score of every sample, by its allocation, where its metric has one.
    """

    name: str
    score_name: str
    points: Sequence[Point]
    per_sample: Callable[[str], Sequence[float] | None]
    clusters: Sequence[str]
    budget: Budget = field(default_factory=Budget)
    parameters: int = 0  # of the model; needed where the budget is in GiB

    def answers(self) -> list[Answer]:
        """What the budget asks for, or the smallest within 1%."""
        return answers(self.points, self.budget, self.parameters, self.per_sample, self.clusters)


def conclusion(results: Results) -> str:
    """The verdict, or the answers to what was asked, and how sure they are."""
    found = results.answers()
    if results.budget.sized or results.budget.scored:
        return "\n\n".join(answer.text for answer in found)
    said = verdict(results.points)
    return said if found[0].point is None else f"{said}\n\n{found[0].sureness}"


def description(results: Results) -> str:
    """The conclusion, then the front; Markdown."""
    lines = [conclusion(results)]
    front = pareto_front(results.points)
    lines.append(f"\n{len(results.points)} allocations evaluated, {len(front)} on the front:\n")
    lines.append(f"| allocation | bpw | stored bpw | {results.score_name} | 95% interval |")
    lines.append("|---|---|---|---|---|")
    lines += [
        f"| {p.allocation} | {p.bpw:.3f} | {_number(p.stored_bpw)} | {p.score:.4g} "
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
    head = f"{'allocation':<{width}}  {'bpw':>7}  {'stored':>7}  {score_name} (95% interval)"
    rows = [
        f"{p.allocation:<{width}}  {p.bpw:7.3f}  {_number(p.stored_bpw):>7}  "
        f"{p.score:.4g} ({_interval(p)})"
        for p in front
    ]
    return "\n".join([head, *rows])


def log_front(run: "StudyRun", results: Results, interactive: bool = True) -> None:
    """The front as table, PNG, metrics and, if interactive, offline plot (4.6 MB) of the run."""
    points, score_name = results.points, results.score_name
    if not points:
        return
    front, title = pareto_front(points), f"{verdict(points)}\n{results.name}"
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
        front_figure(points, score_name, title).savefig(folder / "front.png")
        if interactive:
            plot = front_plot(points, score_name, title.replace("\n", "<br>"))
            plot.write_html(folder / "front.html")
        run.log_folder(folder)
    chosen = smallest_keeping(points)
    metrics: dict[str, float] = {"trials": len(points), "front_size": len(front)}
    if chosen is not None:
        metrics |= {"chosen_bpw": round(chosen.bpw, 4), "chosen_score": round(chosen.score, 4)}
    run.log(metrics=metrics)
