"""The contract suite of launchers, with commands that need no model."""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import pytest

from mmq.contracts import Launcher, LaunchRequest, Workers, WorkerState
from mmq.system.home import home

PLUGINS, UNKNOWN = ["plugins"], ["no-such-command"]
SECRET = "never-to-be-shown"


class LauncherContract(ABC):
    """Subclass it and implement `make`.

    seconds: how long it may take until all workers have ended.
    """

    seconds = 600.0

    @abstractmethod
    def make(self) -> Launcher:
        """The launcher."""

    def request(self, *commands: Sequence[str]) -> LaunchRequest:
        """Workers that run these commands."""
        return LaunchRequest("contract", commands, 0, {"MMQ_HOME": str(home())})

    def follow(
        self, workers: Workers, until: Callable[[Sequence[WorkerState]], bool]
    ) -> Sequence[WorkerState]:
        """The states once they satisfy a condition; fails if that takes too long."""
        end = time.monotonic() + self.seconds
        while not until(states := workers.poll()):
            assert time.monotonic() < end, f"the workers are still {states}"
            time.sleep(0.1)
        return states

    def test_it_has_a_version(self) -> None:
        assert type(self.make()).version >= 1

    def test_workers_run_their_command_and_report_output_place_start_and_exit_code(self) -> None:
        lines: list[tuple[int, str]] = []
        launcher, request = self.make(), self.request(UNKNOWN, UNKNOWN)
        launcher.check(request)
        workers = launcher.start(request, lambda number, line: lines.append((number, line)))
        states = self.follow(workers, lambda s: all(each.code is not None for each in s))
        assert [(state.number, state.code) for state in states] == [(1, 2), (2, 2)]
        assert all(state.place for state in states)
        assert all(abs(time.time() - (state.since or 0)) < 3600 for state in states)
        errors = {number for number, line in lines if line.startswith("Error: Unknown command")}
        assert errors == {1, 2}
        workers.stop()
        assert [state.code for state in workers.poll()] == [2, 2]

    def test_workers_that_are_stopped_have_ended(self) -> None:
        launcher, request = self.make(), self.request(PLUGINS, PLUGINS)
        workers = launcher.start(request, lambda number, line: None)
        workers.stop()
        workers.stop()
        assert all(state.code is not None for state in workers.poll())

    def test_a_preview_shows_the_command_and_no_secret(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(os.environ, "MMQ_STORAGE", f"postgresql://mmq:{SECRET}@host/db")
        text = self.make().preview(self.request(["grid", "--bits", "4,8"]))
        assert "grid --bits 4,8" in text
        assert SECRET not in text

    def test_it_says_whether_workers_run_on_several_machines(self) -> None:
        launcher = self.make()
        launcher.check(self.request(PLUGINS))
        assert launcher.spans_machines() in (True, False)
