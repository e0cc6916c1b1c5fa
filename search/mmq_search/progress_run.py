"""The parent run while a search is running: the UI shows the front so far."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mmq.analysis.fronts import pareto_front
from mmq.studies.front import Results, log_progress, publish
from mmq.system.retries import StorageError
from mmq.tracking import StudyRun, best_effort, short_timeouts

log = logging.getLogger(__name__)
MIN_INTERVAL = 5.0  # seconds between two updates


class ProgressRun:
    """Updates description, table, figure and chart view of a study's run when the front changes.

    Every process of the study has one, and updates the run after each of its trials.
    """

    def __init__(self, run: StudyRun, results: Callable[[], Results]) -> None:
        self.run, self._results = run, results
        self._shown: list[str] = []  # the front's allocations
        self._last = 0.0

    def update(self) -> None:
        """Show the front after a trial if it changed. An unavailable store is only a warning."""
        results = self._results()
        front = [point.allocation for point in pareto_front(results.points)]
        with best_effort("The front in MLflow is not up to date"), short_timeouts():
            log_progress(self.run, results)
            if front == self._shown or time.monotonic() < self._last + MIN_INTERVAL:
                return
            publish(self.run, results, interactive=False)
            self.run.reopen()
            self._shown, self._last = front, time.monotonic()

    @contextmanager
    def finishing(self, last: Callable[[], bool]) -> Iterator[None]:
        """Around the whole search: log the final front at the end.

        last: whether this process is the last one; others leave it to the last one.
        """
        try:
            yield
        except BaseException:
            try:
                with short_timeouts():  # after an interrupt the user waits
                    self._finish(last)
            except StorageError as error:
                log.warning("The front is not logged yet; the same command logs it: %s", error)
            raise
        self._finish(last)

    def _finish(self, last: Callable[[], bool]) -> None:
        results = self._results()
        if results.points and last():
            with best_effort("The front is not logged yet; the same command logs it"):
                publish(self.run, results)
