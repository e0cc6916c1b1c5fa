"""A study on disk: trials asked, told, and never lost."""

import json
import logging
import os
import random
import socket
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from mmq.allocation import BitAllocation
from mmq.analysis.fronts import Point
from mmq.errors import InputError
from mmq.trial import TrialRecord
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

    A record is written before Optuna is told, so what was computed survives a kill at any moment.
    """

    def __init__(self, name: str, key: str, space: Space, folder: Path, seed: int) -> None:
        self.name, self.space, self.seed = name, space, seed
        self.records = folder / "studies" / name
        self.records.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        self.study = optuna.create_study(
            study_name=name,
            storage=f"sqlite:///{folder / 'studies.db'}",
            directions=["minimize", "maximize"],
            load_if_exists=True,
        )
        self.study.set_metric_names(["bpw", "score"])
        self._check_key(key)
        self._reap()
        if not self.study.get_trials(deepcopy=False):
            for allocation in space.diagonal():
                self.study.enqueue_trial(space.params(allocation))
        # a new sampler state a session: the same seed would propose the same again
        self.study.sampler = TPESampler(
            seed=seed + len(self.study.get_trials(deepcopy=False)),
            multivariate=True,
            n_startup_trials=10,
        )

    def _check_key(self, key: str) -> None:
        known = self.study.user_attrs.get("question")
        if known is None:
            self.study.set_user_attr("question", key)
            self.study.set_user_attr("bits", list(self.space.bits))
        elif known != key:
            raise InputError(
                f"study: {self.name!r} answers another question (other model, data, quantizer, "
                f"options or versions). Choose another --study, or leave it empty."
            )
        elif self.study.user_attrs["bits"] != list(self.space.bits):
            raise InputError(
                f"study: {self.name!r} searches other widths: {self.study.user_attrs['bits']}. "
                f"Choose another --study, or leave it empty."
            )

    def _reap(self) -> None:
        """Fail trials whose process on this host is gone, and ask for them again."""
        for trial in self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            owner = trial.user_attrs.get("owner", "")
            host, _, pid = owner.partition(":")
            if host == socket.gethostname() and not Path(f"/proc/{pid}").exists():
                self._fail_and_retry(trial)

    def _fail_and_retry(self, trial: FrozenTrial) -> None:
        self.study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            self.study.enqueue_trial(trial.params, skip_if_exists=False)

    def evaluated(self) -> dict[str, FrozenTrial]:
        """Finished trials that were really evaluated, by allocation."""
        found = {}
        for trial in self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]):
            if "duplicate_of" not in trial.user_attrs:
                found[trial.user_attrs["allocation"]] = trial
        return found

    def ask(self) -> Asked | None:
        """The next allocation that was not evaluated yet; None where there is none left.

        Repeats of the sampler are answered from what was evaluated, so that it learns from them.
        """
        for attempt in range(MAX_DUPLICATES + 1):
            trial = self.study.ask()
            trial.set_user_attr("owner", f"{socket.gethostname()}:{os.getpid()}")
            allocation = self.space.suggest(trial)
            trial.set_user_attr("allocation", str(allocation))
            known = self.evaluated()
            if str(allocation) not in known:
                return Asked(trial, allocation)
            twin = known[str(allocation)]
            trial.set_user_attr("duplicate_of", twin.number)
            self.study.tell(trial, list(twin.values))
            if attempt == MAX_DUPLICATES - 1:
                fresh = self.space.unseen(known, random.Random(self.seed + trial.number))
                if fresh is None:
                    return None
                self.study.enqueue_trial(self.space.params(fresh))
        return None

    def tell(self, asked: Asked, record: TrialRecord, run_id: str) -> None:
        """Keep the record, then tell Optuna."""
        path = self.record_path(asked.allocation)
        aside = path.with_suffix(".tmp")
        aside.write_text(json.dumps(record.to_json()))
        aside.replace(path)
        score = record.evaluation.score
        facts = {
            "run_id": run_id,
            "low": score.low,
            "high": score.high,
            "stored_bpw": record.size.stored_bpw,
        }
        for name, value in facts.items():
            asked.trial.set_user_attr(name, value)
        if "score_name" not in self.study.user_attrs:
            self.study.set_user_attr("score_name", record.evaluation.primary)
        self.study.tell(asked.trial, [record.size.bpw, score.value])

    @property
    def score_name(self) -> str:
        """The metric that is maximized, as the evaluator calls it."""
        return str(self.study.user_attrs.get("score_name", "score"))

    def give_up(self, asked: Asked, retry: bool) -> None:
        """Fail a trial; with `retry` its allocation is asked first when the study goes on."""
        self.study.tell(asked.trial, state=TrialState.FAIL)
        if retry:
            self.study.enqueue_trial(self.space.params(asked.allocation))

    def record_path(self, allocation: BitAllocation | str) -> Path:
        """Where a trial's record is kept."""
        return self.records / f"{str(allocation).replace(' ', '_')}.json"

    def per_sample(self, allocation: str) -> Sequence[float] | None:
        """A finished trial's score of every sample, where its metric has one."""
        path = self.record_path(allocation)
        if not path.exists():
            return None
        record: dict[str, Any] = json.loads(path.read_text())
        values: list[float] | None = record["per_sample"].get(record["primary"])
        return values

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
