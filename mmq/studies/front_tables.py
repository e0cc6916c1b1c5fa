"""The front and the rules of thumb as tables."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mmq.allocation.widths_list import WidthsList
from mmq.analysis.fronts import Point, pareto_front
from mmq.analysis.gains import best_of_size
from mmq.analysis.tables import aligned

if TYPE_CHECKING:
    from mmq.studies.front import Results

WHOLE = WidthsList("component")  # allocations as they are


def linked(text: str, address: str) -> str:
    """Markdown of a text that links to an address, if there is one."""
    return f"[{text}]({address})" if address else text


def rules_table(
    results: "Results", brief: WidthsList = WHOLE
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Head and rows: each rule of thumb, and the best that was evaluated of at most its size."""
    head = ("rule of thumb", "allocation", "size", f"{results.score_name} (95% interval)")
    rows = []
    for name, point in results.rule_points():
        best = best_of_size(results.points, point)
        better = "-" if best == point else f"{brief.text(best.allocation)} {best.score:.4g}"
        scored = f"{point.score:.4g} ({interval_text(point)})"
        size = point.compared_text + ("" if results.fits(point) else ", above the bound")
        rows.append((name, brief.text(point.allocation), size, scored, better))
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


def score_columns(points: Sequence[Point]) -> dict[str, Callable[[Point], str]]:
    """Heads and texts of the columns after what is compared: each of several tasks, flips, and
    the task's score if it is not compared itself.
    """
    columns: dict[str, Callable[[Point], str]] = {}
    for label in dict.fromkeys(task.label for point in points for task in point.tasks):
        columns[f"{label} (share)"] = partial(_task, label)
    if columns:
        columns["binds"] = lambda point: "" if point.is_unquantized else point.binding
    if any(point.flips is not None for point in points):
        columns["flips"] = _flips
    for name in dict.fromkeys(p.task_score[0] for p in points if p.task_score is not None):
        columns[name] = _task_score
    return columns


def _task(label: str, point: Point) -> str:
    own = next((task for task in point.tasks if task.label == label), None)
    return "" if own is None else f"{own.score:.4g} ({own.share:.1f}%)"


def _task_score(point: Point) -> str:
    return "" if point.task_score is None else f"{point.task_score[1]:.4g}"


def _flips(point: Point) -> str:
    if point.flips is None:
        return ""
    value, low, high = point.flips
    return f"{value:.3g}%" if low is None else f"{value:.3g}% ({low:.3g} to {high:.3g})"


def _gib(point: Point) -> str:
    return "" if point.cost is None else f"{point.cost.gib:.4g}"


def _ms(point: Point) -> str:
    return "" if point.cost is None or point.cost.ms is None else f"{point.cost.ms:.4g}"


def number_text(value: float | None) -> str:
    """A size with three decimals; empty if it is unknown."""
    return "" if value is None else f"{value:.3f}"


def _score(point: Point) -> str:
    return f"{point.score:.4g} ({interval_text(point)})"


def interval_text(point: Point) -> str:
    """A 95% interval in words."""
    if point.low is None or point.high is None:
        return "no interval"
    return f"{point.low:.4g} to {point.high:.4g}"


def result_text(results: "Results") -> str:
    """The front and the rules of thumb as tables for the terminal."""
    evaluated = [*pareto_front(results.points), *(point for _, point in results.rule_points())]
    brief = WidthsList.of(point.allocation for point in evaluated)
    front = front_text(results.points, results.score_name, brief)
    return f"{front}\n\n{aligned(*rules_table(results, brief))}"


def front_text(points: Sequence[Point], score_name: str, brief: WidthsList | None = None) -> str:
    """The front as a table for the terminal.

    Where components are divided, each has a column with the list of its widths. brief: how the
    lists are written; by default as these points need it.
    """
    front = pareto_front(points)
    brief = brief or WidthsList.of(point.allocation for point in front)
    columns: dict[str, Callable[[Point], str]] = {"allocation": lambda point: point.allocation}
    if brief.is_needed:
        parts = dict.fromkeys(part for p in front for part in brief.columns(p.allocation))
        columns = {part: partial(_widths, brief, part) for part in parts}
    columns |= cost_columns(front)
    columns["stored"] = lambda point: number_text(point.stored_bpw)
    columns["nominal"] = lambda point: number_text(point.bpw)
    columns |= {f"{score_name} (95% interval)": _score} | score_columns(front)
    table = aligned(list(columns), [[text(p) for text in columns.values()] for p in front])
    return f"Bits of {brief.order}, or of all of them:\n{table}" if brief.is_needed else table


def _widths(brief: WidthsList, part: str, point: Point) -> str:
    return brief.columns(point.allocation).get(part, "")


def rule_rows(results: "Results") -> list[dict[str, object]]:
    """The rules of thumb as rows, each with the best that was evaluated of at most its size."""
    rows: list[dict[str, object]] = []
    for name, point in results.rule_points():
        best = best_of_size(results.points, point)
        rows.append(
            {
                "rule": name,
                "allocation": point.allocation,
                "size": round(point.size, 4),
                "within_bound": results.fits(point),
                "score": round(point.score, 4),
                "low": point.low,
                "high": point.high,
                "best": best.allocation,
                "best_score": round(best.score, 4),
                "run": point.run_id,
            }
        )
    return rows
