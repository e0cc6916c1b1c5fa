"""What a search has found so far, read from its storage."""

import logging
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mmq.analysis.budgets import Budget
from mmq.analysis.fronts import Point, SizeAxis, parse_axis
from mmq.analysis.selection import select
from mmq.errors import InputError, unknown
from mmq.record import TrialRecord
from mmq.studies.front import Results
from mmq.studies.records import Records
from mmq.tracking import fetch_record
from mmq_search.storage import Storage

log = logging.getLogger(__name__)
DIRECTIONS = [StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE]
BASELINE = "baseline"  # the study's attribute with the unquantized model, where no trial has it


class StudyReader:
    """A study to read from: nothing is settled, nor made."""

    def __init__(self, name: str, storage: Storage) -> None:
        """InputError for an unknown study."""
        known = optuna.get_all_study_names(storage.optuna)
        if name not in known:
            raise unknown("study", name, known)
        self._open(name, storage, optuna.load_study(study_name=name, storage=storage.optuna))

    def _open(self, name: str, storage: Storage, study: optuna.Study) -> None:
        self.name, self.storage, self.study = name, storage, study
        self.records = Records(storage.folder / "studies" / name)
        self._samples: dict[str, array[float]] = {}  # records do not change
        self._check_origin()

    def _check_origin(self) -> None:
        """InputError for a study that `mmq search` did not make."""
        trials = self.study.get_trials(deepcopy=False)
        why = ""
        if list(self.study.directions) != DIRECTIONS:
            shown = ", ".join(d.name.lower() for d in self.study.directions)
            why = f"its directions are {shown}, not minimize, maximize"
        elif trials and "eval_spec" not in self.study.user_attrs:
            why = "it has trials, and no eval spec"
        if why:
            raise InputError(
                f"study: {self.name!r} in {self.storage.address} was not made by mmq search: "
                f"{why}. Choose another --study, or another storage."
            )
        others = [t.number for t in trials if t.state.is_finished() and not _is_known(t)]
        if others:
            shown = ", ".join(map(str, others[:5])) + (", ..." if len(others) > 5 else "")
            log.warning("Trials %s of study %s were not made by mmq: ignored", shown, self.name)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Optuna's trials in these states."""
        return self.study.get_trials(deepcopy=False, states=states)

    def evaluated(self) -> dict[str, FrozenTrial]:
        """Finished trials that were really evaluated, by allocation."""
        return self._originals(TrialState.COMPLETE)

    def pruned(self) -> dict[str, FrozenTrial]:
        """Trials that lost their race, by allocation; `partial` in their attributes says more."""
        return self._originals(TrialState.PRUNED)

    def settled(self) -> dict[str, FrozenTrial]:
        """What is never asked again: evaluated or pruned."""
        return self._originals(TrialState.COMPLETE, TrialState.PRUNED)

    def _originals(self, *states: TrialState) -> dict[str, FrozenTrial]:
        return {
            trial.user_attrs["allocation"]: trial
            for trial in self.trials(*states)
            if "duplicate_of" not in trial.user_attrs and _is_known(trial)
        }

    @property
    def parent(self) -> tuple[str, str] | None:
        """Tracking store and id of the parent run that this study is logged to."""
        known = self.study.user_attrs.get("parent")
        return None if known is None else (known[0], known[1])

    @property
    def asked(self) -> dict[str, Any]:
        """What the last command asked for: n_trials, until when (seconds of the epoch), what
        bounds, and of how many parameters.
        """
        return dict(self.study.user_attrs.get("asked") or {})

    def budget(self) -> Budget:
        """The bounds that the last command asked for; InputError for those of a newer mmq."""
        given = dict(self.asked.get("budget") or {})
        known = {field.name for field in fields(Budget)}
        if strange := sorted(given.keys() - known):
            raise InputError(
                f"study: {self.name!r} was searched by a newer mmq, with the bounds "
                f"{', '.join(strange)}. Use that version."
            )
        return Budget(**given)

    @property
    def score_name(self) -> str:
        """The metric that is maximized, as the evaluator calls it."""
        return str(self.study.user_attrs.get("score_name", "score"))

    @property
    def axis(self) -> SizeAxis:
        """The size that is minimized; studies from before there was a choice have the nominal."""
        return parse_axis(self.study.user_attrs.get("size_axis") or "nominal")

    def short_selections(self) -> list[str]:
        """The selections by the last budget, one line each, without how sure they are."""
        asked, parameters = self.asked, self.asked.get("parameters", 0)
        selections = select(
            self.points(), self.budget(), parameters, lambda _: None, [], asked.get("floor")
        )
        return [each.text.splitlines()[0] for each in selections]

    def points(self) -> list[Point]:
        """Every evaluated trial on the size-score plane, and the unquantized model."""
        known = self.study.user_attrs
        nominal = (known.get("size_axis") or "nominal") == "nominal"
        found = {
            allocation: _point(allocation, trial.values, trial.user_attrs, nominal)
            for allocation, trial in self.evaluated().items()
        }
        if (aside := known.get(BASELINE)) is not None:
            name = aside["allocation"]
            found.setdefault(name, _point(name, aside["values"], aside, nominal))
        return list(found.values())

    def per_sample(self, allocation: str) -> Sequence[float] | None:
        """A finished trial's score of every sample, where its metric has one."""
        if (known := self._samples.get(allocation)) is None:
            found = self._read_samples(allocation)
            if found is None:
                return None
            known = self._samples[allocation] = array("d", found)
        return known.tolist()

    def _read_samples(self, allocation: str) -> Sequence[float] | None:
        record = self.record(allocation)
        return None if record is None else record.sample_scores

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
    ) -> Results:
        """What was evaluated; clusters: the picture of every sample; parameters: of the model;
        floor: the least score there is.
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
        )


def _is_known(trial: FrozenTrial) -> bool:
    """Whether a finished trial has the allocation and the values that it has to have."""
    if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
        return True
    valued = trial.state == TrialState.PRUNED or len(trial.values or ()) == len(DIRECTIONS)
    return valued and isinstance(trial.user_attrs.get("allocation"), str)


def _point(
    allocation: str, values: Sequence[float], facts: Mapping[str, Any], nominal: bool
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
    )
