"""The search itself: ask, run, tell, until enough is tried; alone, or among other processes."""

import logging
import time
from dataclasses import dataclass

import click
from tqdm import tqdm

from mmq.analysis.fronts import baseline
from mmq.artifacts.store import Store
from mmq.contracts import Metric
from mmq.errors import InputError, TakenOver, TooLarge
from mmq.models.size import Size
from mmq.prepare import Prepared
from mmq.record import TrialRecord
from mmq.studies.baseline import check_baseline
from mmq.studies.front import Results
from mmq.studies.pruning import Pruner
from mmq.studies.records import Records
from mmq.studies.run import copy_trial, ends_study
from mmq.studies.session import Session
from mmq.system.hashing import digest
from mmq.system.home import home
from mmq.tracking import StudyRun, hasty, optional, unreachable
from mmq_search.deadline import Deadline
from mmq_search.launchers.local import is_worker, oversee
from mmq_search.patience import StorageError
from mmq_search.progress_run import ProgressRun
from mmq_search.study import Asked, SearchStudy

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
    prune: bool = True
    _compared: bool = False  # the unquantized model is evaluated, and scores something

    @property
    def done(self) -> int:
        """How many allocations are settled, by whichever process."""
        return len(self.study.settled())

    def results(self) -> Results:
        """What was found so far."""
        pictures = [sample.image_id for sample in self.prepared.samples]
        steering = self.study.steering
        return self.study.results(pictures, steering.budget, steering.parameters, steering.floor)

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
        target, live = self._target(), ProgressRun(self.run, self.results)
        self.check_baseline()
        # looking for others settles what a killed worker left
        with (
            live.finishing(last=lambda: not self.study.others_at_work()),
            self.study.storage.door.hurrying(),
        ):
            if self.done < target:
                oversee(commands, lambda: self.done, target)
                self.check_baseline()

    def alone(self, session: Session) -> None:
        """Ask, run and tell in this process; the front is logged however it ends."""
        target, live = self._target(), ProgressRun(self.run, self.results)
        failures, idle = 0, False
        with (
            live.finishing(last=lambda: not is_worker() and not self.study.others_at_work()),
            self.study.storage.door.hurrying(),
            tqdm(total=target, desc="search", unit="trial", disable=is_worker()) as bar,
        ):
            bar.update(self.done)
            if not self.study.space.has_baseline:
                self.evaluate_aside(session)
            while self.done < target and not self.deadline.passed:
                first = None if self.check_baseline() else self.study.space.baseline
                if (asked := self.study.ask(target, first)) is None:
                    if idle:  # nothing is left, and nobody's trial can come back
                        break
                    idle = not self.study.others_at_work()
                    time.sleep(0 if idle else POLL)
                    continue
                idle = False
                try:
                    self.run_one(asked, session)
                except StorageError:  # it was waited for long enough
                    raise
                except (TakenOver, TooLarge) as error:
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

    def check_baseline(self) -> bool:
        """Whether the unquantized model was evaluated; InputError where it scores nothing."""
        if self._compared:
            return True
        if (point := baseline(self.study.points())) is None:
            return False
        score = Metric(point.score, len(self.prepared.samples), point.low, point.high)
        try:
            check_baseline(score, self.study.score_name, self.prepared.evaluator.bounds)
        except InputError as error:
            if not is_worker():
                with optional("The run's description is not brought up to date"), hasty():
                    self.run.describe(str(error))
            raise
        self._compared = True
        return True

    def evaluate_aside(self, session: Session) -> None:
        """Evaluate the unquantized model, which the space does not have, once per study.

        It is no trial of Optuna's, and not counted: the others are compared with it.
        """
        study, allocation = self.study, self.study.space.baseline
        store = Store(home() / "store")
        with store.locked(f"baseline-{digest(study.name)}"):  # the other workers wait for it
            if baseline(study.points()) is not None:
                return
            shared = Records.of(self.prepared.eval_spec)

            def save(record: TrialRecord) -> None:
                study.tell_aside(study.records.put(record))

            def save_and_share(record: TrialRecord) -> None:
                study.records.put(record)
                study.tell_aside(shared.put(record))

            if (own := study.records.get(allocation)) is not None:  # it was killed before the end
                study.tell_aside(own)
            elif (cached := shared.get(allocation)) is not None:
                copy_trial(self.run, session.spec(allocation), cached, save)
            else:
                session.record(self.run, allocation, save_and_share)

    def run_one(self, asked: Asked, session: Session) -> None:
        """One trial through mmq's path; what ends it early is told to Optuna too."""
        study = self.study
        try:
            with study.working(asked):
                self._settle(asked, session)
        except TooLarge:
            raise  # it is settled
        except BaseException as error:
            retry = isinstance(error, KeyboardInterrupt | StorageError) or unreachable(error)
            try:
                study.give_up(asked, retry)
            except StorageError as away:
                log.warning("Trial %s is settled by the next command: %s", asked.allocation, away)
            raise

    def _settle(self, asked: Asked, session: Session) -> None:
        """Evaluate, unless a grid or another search has; save, log and tell."""
        study, eval_spec = self.study, self.prepared.eval_spec
        shared = Records.of(eval_spec)
        tags = {"mmq.optuna_trial": str(asked.trial.number)}

        def tell() -> None:
            study.tell(asked)

        def check_size(size: Size) -> None:
            self._check_size(asked, size)

        def save(record: TrialRecord) -> None:
            study.check_claim(asked)
            study.records.put(record)

        def save_and_share(record: TrialRecord) -> None:
            save(record)
            if record.pruned is None:
                shared.put(record)

        if (cached := shared.get(asked.allocation)) is not None:
            check_size(cached.size)
            copy_trial(self.run, session.spec(asked.allocation), cached, save, tell, **tags)
            return
        pruner = Pruner(eval_spec.seed, study.points(), study.per_sample) if self.prune else None
        session.record(
            self.run, asked.allocation, save_and_share, tell, pruner, check_size, **tags
        )

    def _check_size(self, asked: Asked, size: Size) -> None:
        """TooLarge where what was quantized takes more than was planned, and than is allowed."""
        steering, stored_bpw = self.study.steering, size.stored_bpw
        if asked.allocation == self.study.space.baseline or stored_bpw is None:
            return
        if not steering.fits(size.bpw, stored_bpw):
            self.study.exceeds(asked, stored_bpw)
            raise TooLarge(
                f"not evaluated: it takes {stored_bpw:.4f} stored bits per weight, more than "
                f"planned and than {steering.budget.size_text}"
            )
