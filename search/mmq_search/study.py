"""A study on disk: trials asked, told, and never lost."""

import json
import logging
import random
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from mmq.allocation import BitAllocation
from mmq.analysis.fronts import Point
from mmq.errors import InputError
from mmq.owner import is_gone, owner
from mmq.records import Records, primary_samples
from mmq.studies.front import Results
from mmq_search.space import Space

log = logging.getLogger(__name__)
MAX_DUPLICATES = 20  # repeats of the sampler in a row before a fresh allocation is drawn


@dataclass(slots=True)
class Asked:
    """A trial to run."""

    trial: Trial
    allocation: BitAllocation


class SearchStudy:
    """Optuna's study of a question, with the records of its trials beside it.

    A record is written before Optuna is told: a trial that was killed in between is completed from
    its record when the study is opened again.
    """

    def __init__(
        self, name: str, facts: dict[str, Any], space: Space, folder: Path, seed: int
    ) -> None:
        self.name, self.space, self.seed = name, space, seed
        self.records = Records(folder / "studies" / name)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        self.study = optuna.create_study(
            study_name=name,
            storage=f"sqlite:///{folder / 'studies.db'}",
            directions=["minimize", "maximize"],
            load_if_exists=True,
        )
        self.study.set_metric_names(["bpw", "score"])
        self._check_question(facts)
        self._reap()
        self.lead(space.diagonal())  # on every opening, those that are still missing
        # a new sampler state a session: the same seed would propose the same again
        self.study.sampler = TPESampler(
            seed=seed + len(self.study.get_trials(deepcopy=False)),
            multivariate=True,
            n_startup_trials=10,
        )

    def _check_question(self, facts: dict[str, Any]) -> None:
        known = self.study.user_attrs.get("question")
        given = json.loads(json.dumps(facts, default=str))  # as the database gives it back
        if known is None:
            self.study.set_user_attr("question", given)
            self.study.set_user_attr("bits", list(self.space.bits))
            self.study.set_user_attr("grain", self.space.grain)
        elif known != given:
            other = [k for k in given if known.get(k) != given[k]]
            raise InputError(
                f"study: {self.name!r} answers another question; what differs: "
                f"{', '.join(other)}. Choose another --study, or leave it empty."
            )
        for name, wanted in (("bits", list(self.space.bits)), ("grain", self.space.grain)):
            if self.study.user_attrs[name] != wanted:
                raise InputError(
                    f"study: {self.name!r} searches another space, with {name} "
                    f"{self.study.user_attrs[name]}. Choose another --study, or leave it empty."
                )

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states)

    def _reap(self) -> None:
        """Settle trials whose process on this host is gone: by their record, or asked again."""
        for trial in self._trials(TrialState.RUNNING):
            if not is_gone(trial.user_attrs.get("owner", "")):
                continue
            params = trial.params or trial.system_attrs.get("fixed_params", {})
            if set(params) == set(self.space.parts):
                self._settle(trial.number, self.space.allocation(params))
            else:
                self.study.tell(trial.number, state=TrialState.FAIL)

    def _settle(self, number: int, allocation: BitAllocation) -> None:
        """Complete an abandoned trial from its record; without one, fail it and ask again."""
        record = self.records.get(allocation)
        if record is not None and str(allocation) not in self.evaluated():
            self._complete(number, record)
            return
        self.study.tell(number, state=TrialState.FAIL)
        self._enqueue(allocation)

    def _enqueue(self, allocation: BitAllocation) -> None:
        params = self.space.params(allocation)
        waiting = [t.system_attrs.get("fixed_params") for t in self._trials(TrialState.WAITING)]
        if params not in waiting and str(allocation) not in self.evaluated():
            self.study.enqueue_trial(params)

    def lead(self, allocations: Iterable[BitAllocation]) -> None:
        """Ask for these next, in this order, before the sampler chooses again.

        Those that were evaluated, are being evaluated or are waiting already are left out.
        """
        running = {t.user_attrs.get("allocation") for t in self._trials(TrialState.RUNNING)}
        for allocation in allocations:
            if str(allocation) not in running:
                self._enqueue(allocation)

    @property
    def waiting(self) -> int:
        """How many allocations are to be asked before the sampler chooses."""
        return len(self._trials(TrialState.WAITING))

    def evaluated(self) -> dict[str, FrozenTrial]:
        """Finished trials that were really evaluated, by allocation."""
        return {
            trial.user_attrs["allocation"]: trial
            for trial in self._trials(TrialState.COMPLETE)
            if "duplicate_of" not in trial.user_attrs
        }

    def ask(self) -> Asked | None:
        """The next allocation that was not evaluated yet; None where there is none left.

        Repeats of the sampler are answered from what was evaluated, so that it learns from them.
        What another process is evaluating is passed over.
        """
        repeats = 0
        while True:
            trial = self.study.ask()
            trial.set_user_attr("owner", owner())
            allocation = self.space.suggest(trial)
            others = {
                str(t.user_attrs.get("allocation"))
                for t in self._trials(TrialState.RUNNING)
                if t.number != trial.number
            }
            trial.set_user_attr("allocation", str(allocation))
            known = self.evaluated()
            if str(allocation) not in known and str(allocation) not in others:
                return Asked(trial, allocation)
            if str(allocation) in known:
                twin = known[str(allocation)]
                trial.set_user_attr("duplicate_of", twin.number)
                self.study.tell(trial, list(twin.values))
            else:
                self.study.tell(trial, state=TrialState.FAIL)
            repeats += 1
            if repeats >= MAX_DUPLICATES:
                seen = {*known, *others}
                fresh = self.space.unseen(seen, random.Random(self.seed + trial.number))
                if fresh is None:
                    return None
                self._enqueue(fresh)

    def tell(self, asked: Asked) -> None:
        """Tell Optuna what the kept record says."""
        record = self.records.get(asked.allocation)
        assert record is not None, f"{asked.allocation} was never kept"
        self._complete(asked.trial.number, record)

    def _complete(self, number: int, record: dict[str, Any]) -> None:
        score = record["metrics"][record["primary"]]
        facts = {
            "allocation": str(BitAllocation.of(record["allocation"])),
            "run_id": record["run_id"],
            "low": score["low"],
            "high": score["high"],
            "stored_bpw": record["size"]["stored_bpw"],
        }
        storage = self.study._storage  # a Trial of another process can be written in no other way
        trial_id = storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)
        for name, value in facts.items():
            storage.set_trial_user_attr(trial_id, name, value)
        if "score_name" not in self.study.user_attrs:
            self.study.set_user_attr("score_name", record["primary"])
        self.study.tell(number, [record["size"]["bpw"], score["value"]])

    @property
    def parent(self) -> tuple[str, str] | None:
        """Tracking store and id of the parent run that this study is logged to."""
        known = self.study.user_attrs.get("parent")
        return None if known is None else (known[0], known[1])

    @parent.setter
    def parent(self, value: tuple[str, str]) -> None:
        self.study.set_user_attr("parent", list(value))

    @property
    def score_name(self) -> str:
        """The metric that is maximized, as the evaluator calls it."""
        return str(self.study.user_attrs.get("score_name", "score"))

    def give_up(self, asked: Asked, retry: bool) -> None:
        """Settle a trial that ended early; with `retry` its allocation is asked again.

        A trial whose record was kept is complete all the same. Nothing happens where Optuna was
        told already: the interrupt came after the end.
        """
        if self.study.trials[asked.trial.number].state.is_finished():
            return
        if retry or self.records.path(asked.allocation).exists():
            self._settle(asked.trial.number, asked.allocation)
        else:
            self.study.tell(asked.trial, state=TrialState.FAIL)

    def per_sample(self, allocation: str) -> Sequence[float] | None:
        """A finished trial's score of every sample, where its metric has one."""
        record = self.records.get(allocation)
        return None if record is None else primary_samples(record)

    def results(self, clusters: Sequence[str]) -> Results:
        """What was evaluated; clusters: the picture of every sample."""
        return Results(self.name, self.score_name, self.points(), self.per_sample, clusters)

    def points(self) -> list[Point]:
        """Every evaluated trial on the size-score plane."""
        return [
            Point(
                allocation=allocation,
                bpw=trial.values[0],
                score=trial.values[1],
                low=trial.user_attrs.get("low"),
                high=trial.user_attrs.get("high"),
                stored_bpw=trial.user_attrs.get("stored_bpw"),
                run_id=trial.user_attrs.get("run_id"),
            )
            for allocation, trial in self.evaluated().items()
        ]
