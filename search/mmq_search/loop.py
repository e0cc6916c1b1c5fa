"""The search itself: ask, run, tell, until enough is tried; alone, or among other processes."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click
from tqdm import tqdm

from mmq.artifacts import Artifacts
from mmq.errors import TakenOver
from mmq.home import home
from mmq.model import LoadedModel
from mmq.prepare import Prepared
from mmq.racing import Race
from mmq.records import Records
from mmq.store import Store
from mmq.studies.front import Results
from mmq.studies.run import copy_trial, ends_study, record_trial
from mmq.tracking import StudyRun, unreachable
from mmq.trial import TrialRecord, TrialSpec
from mmq_search.deadline import Deadline
from mmq_search.live import LiveView
from mmq_search.patience import StorageError
from mmq_search.study import Asked, SearchStudy
from mmq_search.workers import is_worker, oversee

log = logging.getLogger(__name__)
POLL = 1.0  # seconds between two looks at what the others do


@dataclass(slots=True)
class Search:
    """A study that is searched, with its parent run, up to a number of allocations or a time."""

    study: SearchStudy
    run: StudyRun
    prepared: Prepared
    n_trials: int
    deadline: Deadline
    race: bool = True

    @property
    def done(self) -> int:
        """How many allocations are settled, by whichever process."""
        return len(self.study.settled())

    def results(self) -> Results:
        """What was found so far."""
        pictures = [sample.image_id for sample in self.prepared.samples]
        steering = self.study.steering
        return self.study.results(pictures, steering.budget, steering.parameters)

    def _target(self) -> int:
        """How many allocations to try; says so where some are already."""
        settled = self.study.settled()
        done = len(settled)
        target = min(self.n_trials, done + self.study.steering.left(settled))
        if is_worker():
            return target
        if done:
            state = "is done" if done >= target else "goes on"
            name = self.study.name
            click.echo(f"Study {name} {state}: {done} of {target} allocations are evaluated.")
        if target < self.n_trials:
            click.echo(f"There are {target} allocations (within the budget) in all.")
        return target

    def together(self, commands: list[list[str]]) -> None:
        """Let workers search, and log the front when they have."""
        target, live = self._target(), LiveView(self.run, self.results)
        # looking for others settles what a killed worker left
        with (
            live.finishing(last=lambda: not self.study.others_at_work()),
            self.study.storage.door.hurrying(),
        ):
            if self.done < target:
                oversee(commands, lambda: self.done, target)

    def alone(self, model: LoadedModel, artifacts: Artifacts) -> None:
        """Ask, run and tell in this process; the front is logged however it ends."""
        target, live = self._target(), LiveView(self.run, self.results)
        failures, idle = 0, False
        with (
            live.finishing(last=lambda: not is_worker() and not self.study.others_at_work()),
            self.study.storage.door.hurrying(),
            tqdm(total=target, desc="search", unit="trial", disable=is_worker()) as bar,
        ):
            bar.update(self.done)
            while self.done < target and not self.deadline.passed:
                if (asked := self.study.ask(target)) is None:
                    if idle:  # nothing is left, and nobody's trial can come back
                        break
                    idle = not self.study.others_at_work()
                    time.sleep(0 if idle else POLL)
                    continue
                idle = False
                try:
                    self.run_one(asked, model, artifacts)
                except StorageError:  # it was waited for long enough
                    raise
                except TakenOver as error:
                    tqdm.write(f"Trial {asked.allocation}: {error}")
                except Exception as error:
                    failures += 1
                    tqdm.write(f"Trial {asked.allocation} failed: {type(error).__name__}: {error}")
                    if ends_study(error, failures):
                        raise
                else:
                    failures = 0
                    live.update()
                    bar.set_postfix_str(f"front: {live.size}")
                bar.update(self.done - bar.n)

    def run_one(self, asked: Asked, model: LoadedModel, artifacts: Artifacts) -> None:
        """One trial through mmq's path; what ends it early is told to Optuna too."""
        study = self.study
        try:
            with study.working(asked):
                self._settle(asked, model, artifacts)
        except BaseException as error:
            retry = isinstance(error, KeyboardInterrupt | StorageError) or unreachable(error)
            try:
                study.give_up(asked, retry)
            except StorageError as away:
                log.warning("Trial %s is settled by the next command: %s", asked.allocation, away)
            raise

    def _settle(self, asked: Asked, model: LoadedModel, artifacts: Artifacts) -> None:
        """Evaluate, unless a grid or another search has; keep, log and tell."""
        study, prepared = self.study, self.prepared
        spec = TrialSpec(prepared.question, asked.allocation)
        shared = Records.of(prepared.question)
        tags = {"mmq.optuna_trial": str(asked.trial.number)}

        def tell() -> None:
            study.tell(asked)

        if (known := shared.get(asked.allocation)) is not None:

            def keep_copy(run_id: str) -> None:
                study.check_claim(asked)
                study.records.put(known | {"run_id": run_id})

            copy_trial(self.run, spec, known, keep_copy, tell, **tags)
            return

        def keep(record: TrialRecord, run_id: str) -> Mapping[str, Any]:
            study.check_claim(asked)
            facts = study.records.keep(record, run_id)
            if record.stopped is None:
                shared.put(facts)
            return facts

        seed = prepared.question.seed
        race = Race(seed, study.points(), study.per_sample) if self.race else None
        quiet = is_worker()
        record_trial(self.run, spec, model, artifacts, prepared, keep, tell, race, quiet, **tags)

    def artifacts(self) -> Artifacts:
        """The quantized blocks that trials are assembled from."""
        return self.prepared.artifacts(Store(home() / "store"), quiet=is_worker())
