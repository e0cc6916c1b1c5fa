"""The trials of studies whose exported models were measured: score against time and bytes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mmq.allocation.allocation import is_unquantized
from mmq.analysis.measured import (
    MIB,
    PREFIX,
    MeasuredPoint,
    front,
    heading,
    latency,
    measured_figure,
)
from mmq.analysis.tables import interval

if TYPE_CHECKING:
    from mmq.tracking.queries import StudyTrials

Layout = Callable[[Sequence[str], Sequence[Sequence[str]]], str]


@dataclass(frozen=True, slots=True)
class MeasuredFront:
    """Trials of a table that were measured in one setting: engine, machine and workload.

    target: whose files were measured. unquantized: the score of the unquantized model.
    """

    table: str
    target: str
    setting: str
    points: Sequence[MeasuredPoint]
    unquantized: float | None

    def figure(self, score_name: str, subject: str) -> Any:
        """Score against bytes, and beside it against time per answer."""
        title = heading(subject or self.table, self.points, self.setting)
        return measured_figure(self.points, score_name, title, self.unquantized)

    def text(self, score_name: str, layout: Layout) -> str:
        """The points as a table, the fastest first."""
        label, median, least, most = latency(self.points)
        fronts = {
            "bytes": front(self.points, lambda point: point.file_bytes),
            "time": front(self.points, median),
        }
        rows = [
            (
                point.allocation,
                f"{point.file_bytes / MIB:.4g}",
                interval(median(point), least(point), most(point)),
                interval(point.score, point.low, point.high),
                " and ".join(name for name, own in fronts.items() if point in own) or "-",
            )
            for point in sorted(self.points, key=median)
        ]
        head = ("allocation", "files (MiB)", label, f"{score_name} (95% interval)", "on front of")
        return f"Measured in {self.setting}:\n\n{layout(head, rows)}"

    def rows(self) -> list[dict[str, Any]]:
        """The points as plain data, for a logged table."""
        names = {"table": self.table, "target": self.target, "setting": self.setting}
        return [names | asdict(point) for point in self.points]


def measured_fronts(groups: Sequence["StudyTrials"], score: str) -> list[MeasuredFront]:
    """One front for every table, target and setting with measured trials. score: the metric."""
    return [front for group in groups for front in _fronts(group, score)]


def _fronts(group: "StudyTrials", score: str) -> Iterator[MeasuredFront]:
    by_setting: dict[tuple[str, str], list[MeasuredPoint]] = {}
    unquantized = None
    for trial in group.trials:
        if trial.score is None:
            continue
        if is_unquantized(trial.allocation):
            unquantized = trial.score
        low, high = (trial.metrics.get(f"{score}_{end}") for end in ("low", "high"))
        for target, setting in trial.settings.items():
            point = MeasuredPoint.of(
                str(trial.allocation), trial.score, low, high, trial.metrics, target
            )
            by_setting.setdefault((target, setting), []).append(point)
    for (target, setting), points in by_setting.items():
        yield MeasuredFront(group.name, target, setting, points, unquantized)


def named_figures(
    fronts: Sequence[MeasuredFront], score_name: str, subject: str
) -> dict[str, Any]:
    """A figure of every front, by a name such as measured-gguf."""
    figures: dict[str, Any] = {}
    for own in fronts:
        name = f"{PREFIX}-{own.target}"
        same = sum(key == name or key.startswith(f"{name}-") for key in figures)
        figures[f"{name}-{same + 1}" if same else name] = own.figure(score_name, subject)
    return figures
