"""What a search has evaluated so far, read from its database."""

import logging
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mmq.analysis.budgets import Budget
from mmq.analysis.fronts import AGREEMENT, Cost, Point, SizeAxis, TaskScore, parse_axis
from mmq.analysis.joint import JointSamples
from mmq.analysis.selection import select
from mmq.errors import InputError, unknown
from mmq.record import TrialRecord
from mmq.studies.front import Results
from mmq.studies.objectives import Objective, parse_objective, samples_of
from mmq.studies.records import Records
from mmq.tracking import fetch_record
from mmq_search.storage import Storage

log = logging.getLogger(__name__)
DIRECTIONS = [StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE]
BASELINE = "baseline"  # study attribute: the unquantized model's result, if no trial has it
MEASURED = "measured_size"  # trial attribute: of one that is larger than planned
RULES = "rules"  # study attribute: names of the rules of thumb by allocation
REQUEST = "request"  # study attribute: what the last command requested


class StudyReader:
    """A study opened for reading: nothing is created or changed."""

    def __init__(self, name: str, storage: Storage) -> None:
        """InputError for an unknown study."""
        names = optuna.get_all_study_names(storage.optuna)
        if name not in names:
            raise unknown("study", name, names)
        self._open(name, storage, optuna.load_study(study_name=name, storage=storage.optuna))

    def _open(self, name: str, storage: Storage, study: optuna.Study) -> None:
        self.name, self.storage, self.study = name, storage, study
        self.study_id = storage.optuna.get_study_id_from_name(name)
        self.records = Records(storage.folder / "studies" / name)
        self._samples: dict[str, array[float]] = {}  # records do not change
        self._ids: dict[int, int] = {}  # of trials, by number: they do not change either
        self._check_origin()

    def _check_origin(self) -> None:
        """InputError for a study that `mmq search` did not create."""
        trials = self.study.get_trials(deepcopy=False)
        why = ""
        if list(self.study.directions) != DIRECTIONS:
            shown = ", ".join(d.name.lower() for d in self.study.directions)
            why = f"its directions are {shown}, not minimize, maximize"
        elif trials and "eval_spec" not in self.study.user_attrs:
            why = "it has trials, but no eval spec"
        if why:
            raise InputError(
                f"study: mmq search did not create {self.name!r} in "
                f"{self.storage.database.address}: {why}. Choose another --study, or another "
                f"storage."
            )
        others = [t.number for t in trials if t.state.is_finished() and not _is_valid(t)]
        if others:
            shown = ", ".join(map(str, others[:5])) + (", ..." if len(others) > 5 else "")
            log.warning(
                "Ignoring trials %s of study %s, which mmq did not create", shown, self.name
            )

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Optuna's trials in these states."""
        return self.study.get_trials(deepcopy=False, states=states)

    def evaluated(self) -> dict[str, FrozenTrial]:
        """Completed trials by allocation, without duplicates."""
        return self._originals(TrialState.COMPLETE)

    def pruned(self) -> dict[str, FrozenTrial]:
        """Pruned trials by allocation; their attribute `partial` has the score so far."""
        return self._originals(TrialState.PRUNED)

    def finished(self) -> dict[str, FrozenTrial]:
        """Completed and pruned trials by allocation: none of them is evaluated again."""
        return self._originals(TrialState.COMPLETE, TrialState.PRUNED)

    def _originals(self, *states: TrialState) -> dict[str, FrozenTrial]:
        return {
            trial.user_attrs["allocation"]: trial
            for trial in self.trials(*states)
            if "duplicate_of" not in trial.user_attrs and _is_valid(trial)
        }

    def rejected_sizes(self) -> dict[str, float]:
        """Sizes of allocations that were larger than planned and than the bound."""
        return {
            trial.user_attrs["allocation"]: trial.user_attrs[MEASURED]
            for trial in self.trials(TrialState.FAIL)
            if MEASURED in trial.user_attrs
        }

    def _trial_id(self, number: int) -> int:
        if number not in self._ids:
            find = self.storage.optuna.get_trial_id_from_study_id_trial_number
            self._ids[number] = find(self.study_id, number)
        return self._ids[number]

    def running(self) -> dict[str, int]:
        """Numbers of running trials by allocation."""
        return {
            str(trial.user_attrs.get("allocation")): trial.number
            for trial in self.trials(TrialState.RUNNING)
        }

    @property
    def parent(self) -> tuple[str, str] | None:
        """Tracking store and id of the parent run that this study is logged to."""
        parent = self.study.user_attrs.get("parent")
        return None if parent is None else (parent[0], parent[1])

    @property
    def request(self) -> dict[str, Any]:
        """What the last command requested.

        n_trials, until (seconds since the epoch), budget; the model's parameters and the metric's
        floor.
        """
        return dict(self.study.user_attrs.get(REQUEST) or {})

    @property
    def rules(self) -> dict[str, str]:
        """Names of the rules of thumb by allocation; none in studies of earlier versions."""
        return dict(self.study.user_attrs.get(RULES) or {})

    def budget(self) -> Budget:
        """The bounds of the last command; InputError for those of a newer mmq."""
        bounds = dict(self.request.get("budget") or {})
        names = {field.name for field in fields(Budget)}
        if strange := sorted(bounds.keys() - names):
            raise InputError(
                f"study: {self.name!r} has bounds that this version of mmq does not know: "
                f"{', '.join(strange)}. Use the newer version that searched it."
            )
        return Budget(**bounds)

    @property
    def score_name(self) -> str:
        """The metric that is maximized, as the evaluator names it."""
        return str(self.study.user_attrs.get("score_name", "score"))

    @property
    def axis(self) -> SizeAxis:
        """The size that is minimized; nominal in studies that are older than the option."""
        return parse_axis(self.study.user_attrs.get("size_axis") or "nominal")

    @property
    def objective(self) -> Objective:
        """What is maximized."""
        return parse_objective(self.study.user_attrs.get("objective") or "score")

    def headlines(self) -> list[str]:
        """The selected allocations, one line each, without their uncertainty."""
        request = self.request
        selections = select(
            self.points(),
            self.budget(),
            request.get("parameters", 0),
            lambda _: None,
            [],
            request.get("floor"),
        )
        return [selection.headline for selection in selections]

    def points(self) -> list[Point]:
        """Every evaluated trial on the size-score plane, and the unquantized model."""
        attrs = self.study.user_attrs
        nominal = (attrs.get("size_axis") or "nominal") == "nominal"
        name = "score" if self.objective == "score" else AGREEMENT
        points = {
            allocation: _point(allocation, trial.values, trial.user_attrs, nominal, name)
            for allocation, trial in self.evaluated().items()
        }
        if (result := attrs.get(BASELINE)) is not None:
            own = result["allocation"]
            points.setdefault(own, _point(own, result["values"], result, nominal, name))
        return list(points.values())

    def per_sample(self, allocation: str) -> Sequence[float] | None:
        """A completed trial's score of every sample; None if its metric has none."""
        if (cached := self._samples.get(allocation)) is None:
            scores = self._read_samples(allocation)
            if scores is None:
                return None
            cached = self._samples[allocation] = array("d", scores)
        return cached.tolist()

    def _read_samples(self, allocation: str) -> Sequence[float] | None:
        record = self.record(allocation)
        return None if record is None else samples_of(record, self.objective)

    def task_samples(self, allocation: str) -> Mapping[str, Sequence[float]] | None:
        """A completed trial's score of every sample of each of several tasks."""
        record = self.record(allocation)
        return None if record is None else record.per_sample

    def record(self, allocation: str) -> TrialRecord | None:
        """The record of an evaluated allocation, from disk or from its run; None without one."""
        record = self.records.get(allocation)
        if record is None:  # another machine evaluated it
            run_id = next(p.run_id for p in self.points() if p.allocation == allocation)
            record = None if run_id is None else fetch_record(run_id)
            if record is not None:
                self.records.put(record)
        return record

    def results(
        self,
        clusters: Sequence[str],
        budget: Budget | None = None,
        parameters: int = 0,
        floor: float | None = None,
        joint: JointSamples | None = None,
    ) -> Results:
        """The evaluated trials. clusters: the image of every sample; parameters: of the model;
        floor: the lowest possible score; joint: the samples of several tasks.
        """
        return Results(
            self.name,
            self.score_name,
            self.points(),
            self.per_sample,
            clusters,
            budget or Budget(),
            parameters,
            floor,
            joint,
            rules=self.rules,
        )


def _is_valid(trial: FrozenTrial) -> bool:
    """Whether a finished trial has the allocation and the values that mmq writes."""
    if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
        return True
    valued = trial.state == TrialState.PRUNED or len(trial.values or ()) == len(DIRECTIONS)
    return valued and isinstance(trial.user_attrs.get("allocation"), str)


def _point(
    allocation: str,
    values: Sequence[float],
    facts: Mapping[str, Any],
    nominal: bool,
    objective: str,
) -> Point:
    return Point(
        allocation=allocation,
        bpw=facts.get("bpw", values[0]),
        score=values[1],
        low=facts.get("low"),
        high=facts.get("high"),
        stored_bpw=facts.get("stored_bpw"),
        run_id=facts.get("run_id"),
        nominal=nominal,
        cost=Cost(**facts["cost"]) if "cost" in facts else None,
        tasks=tuple(TaskScore(**task) for task in facts.get("tasks", ())),
        flips=tuple(facts["flips"]) if "flips" in facts else None,
        objective=objective,
        task_score=tuple(facts["task_score"]) if "task_score" in facts else None,
    )
