"""Trials whose process died are released, and those of living processes are not."""

import time
from datetime import datetime, timedelta

import pytest
from mmq_search.stale_trials import LISTEN
from optuna.trial import TrialState
from processes import killed_elsewhere
from sqlalchemy import text
from test_study import finish, open_study

from mmq.errors import TakenOver
from mmq.system.database import GRACE


def silence(study):
    """Simulate an absence of heartbeats, or a database whose clock was set ahead."""
    with study.storage.optuna.engine.begin() as connection:
        at = datetime.utcnow() - timedelta(seconds=GRACE + 5)
        connection.execute(text("update trial_heartbeats set heartbeat = :at"), {"at": at})


def test_a_trial_of_another_machine_is_requeued_when_its_heartbeat_stops(
    tmp_path, database, monkeypatch
):
    allocation = killed_elsewhere(tmp_path)
    study = open_study(tmp_path, tmp_path.name)
    assert len(study.trials(TrialState.RUNNING)) == 1
    assert study.others_at_work()
    silence(study)
    assert study.others_at_work()  # the database's clock may have been set: it is listened to
    clock = time.monotonic() + LISTEN
    monkeypatch.setattr("mmq_search.stale_trials.time.monotonic", lambda: clock)
    assert not study.others_at_work()
    assert allocation in finish(study, 7)


def test_a_trial_whose_heartbeat_is_back_is_not_released(tmp_path, monkeypatch):
    killed_elsewhere(tmp_path)  # who beats for it is this process
    study, clock = open_study(tmp_path, tmp_path.name), [1000.0]
    monkeypatch.setattr("mmq_search.stale_trials.time.monotonic", lambda: clock[0])
    (trial,) = study.trials(TrialState.RUNNING)
    for _ in range(3):
        silence(study)
        assert study.others_at_work()
        study.storage.optuna.record_heartbeat(trial._trial_id)
        clock[0] += LISTEN
        assert study.others_at_work()
    silence(study)
    assert study.others_at_work()
    clock[0] += LISTEN
    study.storage.retries.outages += 1  # nobody could be heard meanwhile
    assert study.others_at_work()
    clock[0] += LISTEN
    assert not study.others_at_work()


def test_a_heartbeat_is_written_while_a_trial_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("mmq_search.storage.HEARTBEAT", 0.05)
    study = open_study(tmp_path)
    pending, query = study.ask(), text("select heartbeat from trial_heartbeats")

    def beat():
        with study.storage.optuna.engine.connect() as connection:
            return connection.execute(query).scalar()

    first = beat()
    with study.working(pending):
        end = time.monotonic() + 300
        while beat() == first and time.monotonic() < end:
            time.sleep(0.1)
    assert beat() != first


def test_a_trial_whose_process_died_while_asking_is_released(tmp_path):
    study = open_study(tmp_path)
    half = study.study.ask()
    assert "vit=16 llm=16" in finish(open_study(tmp_path), 7)
    assert study.study.trials[half.number].state == TrialState.FAIL


def test_a_process_whose_trial_was_released_records_nothing(tmp_path):
    study = open_study(tmp_path)
    pending = study.ask()
    study.check_claim(pending)
    study.study.tell(pending.trial.number, state=TrialState.FAIL)  # as others do with the silent
    with pytest.raises(TakenOver):
        study.check_claim(pending)
    study.give_up(pending, retry=False)
    assert not study.points()
