"""The progress of a search: a bar with the answer so far, or one line per trial in a file."""

from types import TracebackType
from typing import Self

from optuna.trial import FrozenTrial, TrialState

from mmq.analysis.fronts import Point, baseline
from mmq.analysis.selection import select
from mmq.system.progress import has_bars, notify, progress_bar
from mmq.system.worker import is_worker
from mmq_search.deadline import in_words
from mmq_search.study import SearchStudy


class TrialLines:
    """Reports the trials that finish, in whichever process; a worker reports nothing."""

    def __init__(self, study: SearchStudy, target: int, bar: bool = True) -> None:
        """target: how many trials the search has. bar: show one on a terminal."""
        self.study, self.target = study, target
        self._reported = set(study.finished())
        initial = len(self._reported)
        self._bar = progress_bar(
            total=target,
            initial=initial,
            desc="search",
            unit="trial",
            quiet=is_worker() or not bar,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()

    def update(self) -> int:
        """Report what finished since the last call; returns how many trials are finished."""
        finished = self.study.finished()
        new = [name for name in finished if name not in self._reported]
        if new and not is_worker():
            points, first = self.study.points(), not self._reported
            best = self._best(points)
            for name in new:
                self._reported.add(name)
                if not has_bars():
                    notify(self._line(name, finished[name], points, best))
            if first:
                self._estimate(finished[new[0]])
            self._bar.set_postfix_str(best)
        self._bar.update(len(finished) - self._bar.n)
        return len(finished)

    def _estimate(self, trial: FrozenTrial) -> None:
        """Report the time of the remaining trials, from the first one."""
        left = self.target - len(self._reported)
        if trial.duration is None or left <= 0:
            return
        seconds = max(0.0, trial.duration.total_seconds())
        total = in_words(seconds * left)
        notify(f"About {total} left: {left} trials of {seconds:.3g} s in one process")

    def _best(self, points: list[Point]) -> str:
        """The selected allocation so far; "" if there is none yet."""
        setup = self.study.setup
        selections = select(
            points, setup.budget, setup.parameters, lambda name: None, [], setup.floor
        )
        point = next(
            (selection.point for selection in selections if selection.point is not None), None
        )
        return "" if point is None else f"best so far {_described(point)}"

    def _line(self, name: str, trial: FrozenTrial, points: list[Point], best: str) -> str:
        count = f"trial {len(self._reported)}/{self.target}"
        if trial.state == TrialState.PRUNED:
            partial = trial.user_attrs.get("partial", {})
            return (
                f"{count} {name} pruned after {partial.get('samples')} samples at "
                f"{partial.get('score', 0):.4g}"
            )
        point = next(point for point in points if point.allocation == name)
        reference = baseline(points)
        loss = "" if reference is None else f" ({point.score - reference.score:+.3g})"
        return f"{count} {_described(point)}{loss}{', ' if best else ''}{best}"


def _described(point: Point) -> str:
    return f"{point.allocation} {point.compared_text} {point.score:.4g}"
