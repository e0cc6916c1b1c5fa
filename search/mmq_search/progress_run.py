"""The parent run while the search goes on: what the UI shows is what is known."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mmq.analysis.fronts import pareto_front
from mmq.studies.front import Results, description, log_front
from mmq.tracking import StudyRun, hasty, optional
from mmq_search.patience import StorageError

log = logging.getLogger(__name__)
EVERY = 5.0  # seconds at least between two updates


class ProgressRun:
    """Description, table, picture and chart view of a study's run, brought up to date cheaply.

    Every process that works on the study has one; whoever finished a trial updates the run.
    """

    def __init__(self, run: StudyRun, results: Callable[[], Results]) -> None:
        self.run, self._results = run, results
        self._shown: list[str] = []  # the front's allocations
        self._last = 0.0
        self.size = 0  # of the front

    def update(self) -> None:
        """After a trial: where the front changed, show it. A store that is away costs nothing."""
        results = self._results()
        count = len(results.points)
        self.size = len(front := [point.allocation for point in pareto_front(results.points)])
        with optional("The front is not shown yet"), hasty():
            self.run.log(metrics={"trials": count}, step=count)
            if front == self._shown or time.monotonic() < self._last + EVERY:
                return
            self._show(results, interactive=False)
            self.run.keep_open()
            self._shown, self._last = front, time.monotonic()

    @contextmanager
    def finishing(self, last: Callable[[], bool]) -> Iterator[None]:
        """Around the whole search: at its end everything is logged, by the last that leaves."""
        try:
            yield
        except BaseException:
            try:
                with hasty():  # nobody waits minutes after an interrupt
                    self._finish(last)
            except StorageError as error:
                log.warning("The front is not logged; the same command does it later: %s", error)
            raise
        self._finish(last)

    def _finish(self, last: Callable[[], bool]) -> None:
        results = self._results()
        if results.points and last():
            with optional("The front is not logged; the same command does it later"):
                self._show(results, interactive=True)

    def _show(self, results: Results, interactive: bool) -> None:
        self.run.describe(description(results))
        self.run.save_view(self.run.parts, results.score_name)
        log_front(self.run, results, interactive)
