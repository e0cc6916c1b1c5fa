"""The progress of a search: a bar with the answer so far, or one line per trial in a file."""

from types import TracebackType
from typing import Self

from optuna.trial import FrozenTrial, TrialState

from mmq.allocation.widths_list import WidthsList
from mmq.analysis.fronts import Point, baseline
from mmq.analysis.selection import select
from mmq.system.progress import has_bars, notify, progress_bar
from mmq.system.wording import counted
from mmq.system.worker import is_worker
from mmq_search.deadline import in_words
from mmq_search.study import SearchStudy


class TrialLines:
    """Reports the trials that finish, in whichever process; a worker reports nothing."""

    def __init__(self, study: SearchStudy, target: int, bar: bool = True) -> None:
        """target: how many trials the search has. bar: show one on a terminal."""
        self.study, self.target = study, target
        self._numbers = {name: number for number, name in enumerate(study.finished(), 1)}
        self._brief = WidthsList(study.space.granularity)
        self._bar = progress_bar(
            total=target,
            initial=len(self._numbers),
            desc="search",
            unit="trial",
            quiet=is_worker() or not bar,
        )

    def __enter__(self) -> Self:
        if self._brief.is_needed and len(self._numbers) < self.target and not is_worker():
            notify(f"Bits of each component: {self._brief.order}, or one width for all of them.")
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
        new = [name for name in finished if name not in self._numbers]
        if new and not is_worker():
            points, first = self.study.points(), not self._numbers
            best = self._best(points)
            for name in new:
                self._numbers[name] = len(self._numbers) + 1
                if not has_bars():
                    notify(self._line(name, finished[name], points, best))
            if first:
                self._estimate(finished[new[0]])
            if best is not None:
                self._bar.set_postfix_str(f"best so far {self._described(best)}")
        self._bar.update(len(finished) - self._bar.n)
        return len(finished)

    def _estimate(self, trial: FrozenTrial) -> None:
        """Report the time of the remaining trials, from the first one."""
        left = self.target - len(self._numbers)
        if trial.duration is None or left <= 0:
            return
        seconds = max(0.0, trial.duration.total_seconds())
        total = in_words(seconds * left)
        notify(f"About {total} left: {counted(left, 'trial')} of {seconds:.3g} s in one process")

    def _best(self, points: list[Point]) -> Point | None:
        """The selected allocation so far; None if there is none yet."""
        setup = self.study.setup
        selections = select(
            points, setup.budget, setup.parameters, lambda name: None, [], setup.floor
        )
        return next(
            (selection.point for selection in selections if selection.point is not None), None
        )

    def _line(self, name: str, trial: FrozenTrial, points: list[Point], best: Point | None) -> str:
        count = f"trial {self._numbers[name]}/{self.target}"
        if trial.state == TrialState.PRUNED:
            partial = trial.user_attrs.get("partial", {})
            return (
                f"{count} {self._brief.text(name)} pruned after {partial.get('samples')} samples "
                f"at {partial.get('score', 0):.4g}"
            )
        point = next(point for point in points if point.allocation == name)
        reference = baseline(points)
        loss = "" if reference is None else f" ({point.score - reference.score:+.3g})"
        return f"{count} {self._described(point)}{loss}{self._compared(point, best)}"

    def _described(self, point: Point) -> str:
        return f"{self._brief.text(point.allocation)} {_size(point)} {point.score:.4g}"

    def _compared(self, point: Point, best: Point | None) -> str:
        """How a trial compares with the best so far; "" if there is none."""
        if best is None:
            return ""
        if point == best:
            return ", the best so far"
        number = self._numbers.get(best.allocation)  # the baseline has none
        name = self._brief.text(best.allocation) if number is None else f"trial {number}"
        return f", best so far: {name}, {_size(best)}, {best.score:.4g}"


def _size(point: Point) -> str:
    """A trial's size in few characters: a search compares sizes of one kind."""
    if point.cost is None:
        return f"{point.size:.3f} bpw"
    return f"{point.cost.value:.4g} {'GiB' if point.cost.ms is None else 'ms'}"
