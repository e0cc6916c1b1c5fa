"""Optuna's private API is what mmq expects, in the versions that it names."""

import optuna
import pytest
from mmq_search import optuna_internals, optuna_tables
from mmq_search.optuna_internals import (
    enqueued_params,
    proposal,
    set_proposal,
    stale_trial_numbers,
    trial_id,
)
from mmq_search.storage import Storage
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import TrialState, create_trial
from sqlalchemy import text

from mmq.system.retries import StorageError


def test_the_installed_optuna_is_a_version_that_its_internals_were_checked_with():
    minor = ".".join(optuna.__version__.split(".")[:2])
    assert minor in optuna_internals.VERSIONS, (
        f"Optuna {optuna.__version__}: its private API was checked with "
        f"{', '.join(optuna_internals.VERSIONS)}. Run tests/search, compare each use in "
        f"search/mmq_search/optuna_internals.py, then add {minor!r} to VERSIONS."
    )


@pytest.fixture
def study(tmp_path):
    return optuna.create_study(
        storage=Storage(tmp_path).optuna, directions=["minimize", "maximize"]
    )


def test_enqueued_parameters_are_read_before_and_after_the_trial_starts(study):
    study.enqueue_trial({"x": 3})
    study.add_trial(create_trial(values=[1, 2]))
    assert [enqueued_params(trial) for trial in study.trials] == [{"x": 3}, {}]
    study.ask()
    assert enqueued_params(study.trials[0]) == {"x": 3}


def test_a_proposal_is_read_by_other_processes(study):
    trial = study.ask()
    set_proposal(study, study.trials[trial.number], {"x": 3})
    assert proposal(study.trials[trial.number]) == {"x": 3}


def test_a_trial_starts_in_one_transaction_that_has_its_parameters(study, tmp_path):
    storage, other = study._storage._backend, optuna.load_study(
        study_name=study.study_name, storage=Storage(tmp_path).optuna
    )  # fmt: skip
    trial = study.ask()
    with storage.collecting_params() as collected:
        params = {name: trial.suggest_int(name, 0, 9) for name in "xyz"}
        set_proposal(study, study.trials[0], params)
    assert other.trials[0].params == other.trials[0].system_attrs == {}
    storage.write_start(trial_id(trial), collected, {"owner": "me"})
    (seen,) = other.trials
    assert (seen.params, seen.user_attrs) == (params, {"owner": "me"})
    assert seen == storage.get_trial(trial_id(trial)) == study.trials[0]
    with storage.engine.connect() as connection:
        assert connection.scalar(text("select count(*) from trial_heartbeats")) == 1


def test_a_trial_ends_once_with_its_values_and_attributes(study):
    storage, trial = study._storage._backend, study.ask()
    number = trial_id(trial)
    storage.write_start(number, [], {"a": 1, "owner": "me"})
    assert storage.get_state(number) == TrialState.RUNNING
    for _ in range(2):  # as after a reply that was lost
        storage.write_end(
            number, TrialState.COMPLETE, [1.0, float("inf")], {"a": [1.5], "b": None}
        )
    storage.write_end(number, TrialState.PRUNED, [], {"a": 2})
    (ended,) = study.trials
    assert (ended.state, ended.values) == (TrialState.COMPLETE, [1.0, float("inf")])
    assert ended.user_attrs == {"a": [1.5], "b": None, "owner": "me"}
    assert ended.duration.total_seconds() >= 0
    for call, rest in (
        (storage.get_state, ()),
        (storage.get_trial, ()),
        (storage.write_end, (TrialState.FAIL, [], {"a": 1})),
    ):
        with pytest.raises(StorageError, match="the study is no longer in the database"):
            call(99, *rest)


def test_trials_are_read_once_in_a_block_and_again_after_a_write(study, monkeypatch):
    storage, reads, real = study._storage._backend, [], optuna_tables.read_trials
    monkeypatch.setattr(optuna_tables, "read_trials", lambda *rest: reads.append(1) or real(*rest))
    with storage.reading_once():
        assert study.trials == study.trials == []
        assert len(reads) == 1
        trial = study.ask()
        assert [each.state for each in study.trials] == [TrialState.RUNNING]
        storage.write_start(trial_id(trial), [], {"a": 1})
        before = len(reads)
        assert study.trials[0].user_attrs == study.trials[0].user_attrs == {"a": 1}
        assert len(reads) == before + 1
    assert study.trials
    assert study.trials
    assert len(reads) == before + 3


def test_a_trial_is_stale_when_its_heartbeat_is_older_than_the_grace_period(study):
    storage = study._storage._backend
    silent, alive = study.ask(), study.ask()
    for trial in (silent, alive):
        storage.record_heartbeat(trial._trial_id)
    with storage.engine.begin() as connection:
        connection.execute(
            text("update trial_heartbeats set heartbeat = '2020-01-01' where trial_id = :id"),
            {"id": silent._trial_id},
        )
    assert stale_trial_numbers(storage, study._study_id, study.trials) == {silent.number}


def test_trials_read_at_once_are_those_that_optuna_reads(tmp_path, monkeypatch):
    storage = Storage(tmp_path).optuna
    study = optuna.create_study(
        study_name="s", storage=storage, directions=["minimize", "maximize"]
    )
    space = {
        "int": IntDistribution(0, 9), "float": FloatDistribution(1e-3, 1, log=True),
        "category": CategoricalDistribution(["a", None, 3]),
    }  # fmt: skip
    params = {"int": 3, "float": 0.5, "category": None}
    study.add_trials([
        create_trial(params=params, distributions=space, values=[1.0, float("inf")]),
        create_trial(state=TrialState.PRUNED, user_attrs={"partial": {"score": [1, None]}},
                     intermediate_values={0: 0.5, 7: float("nan"), 9: float("-inf")}),
        create_trial(state=TrialState.FAIL, params=params, distributions=space),
    ])  # fmt: skip
    study.ask(space)
    running = study.ask()
    for k in range(3):
        study.add_trial(create_trial(values=[k, -k]))
    study.enqueue_trial(params)

    def both(*arguments):
        ours = storage._get_trials(study._study_id, *arguments)
        assert repr(ours) == repr(RDBStorage._get_trials(storage, study._study_id, *arguments))
        return ours

    monkeypatch.setattr("mmq_search.optuna_tables.BATCH", 2)
    assert len(both(None, set(), -1)) == 9
    assert len(both((TrialState.COMPLETE,), set(), -1)) == 4
    first = study.trials[0]._trial_id
    assert len(both(None, {first, first + 4, running._trial_id, first + 8}, first + 6)) == 4
    assert both(None, set(), first + 99) == []
