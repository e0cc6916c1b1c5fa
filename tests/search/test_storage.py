"""The database of a study: its address, its locks, and several processes in it."""

import multiprocessing
import re
import time

import optuna
import pytest
from mmq_search.storage import Storage
from optuna.trial import TrialState
from postgres import PASSWORD
from processes import process
from test_study import SPACE, finish, open_study, record

from mmq.errors import InputError
from mmq.system.database import VARIABLE
from mmq.system.retries import StorageError


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://mmq:{PASSWORD}@127.0.0.1:9/x",
        f"postgresql://mmq:{PASSWORD}@127.0.0.1:nine/x",
        f"mysql://mmq:{PASSWORD}@127.0.0.1:9/x",
        f"sqlite:///{PASSWORD}.db",
        f"mmq:{PASSWORD}",
        f"postgresql://mmq:with@{PASSWORD}@127.0.0.1/x",
        f"postgresql://mmq@127.0.0.1:9/x?password={PASSWORD}",
    ],
)
def test_a_storage_that_cannot_be_used_is_an_input_error_without_the_password(
    tmp_path, monkeypatch, url
):
    monkeypatch.setenv(VARIABLE, url)
    with pytest.raises(InputError) as caught:
        Storage(tmp_path)
    assert PASSWORD not in str(caught.value)
    assert not set(re.findall(r"[?.]\.", str(caught.value)))
    assert caught.value.__cause__ is None


def test_a_wrong_password_is_an_input_error_that_does_not_show_it(tmp_path, monkeypatch, server):
    monkeypatch.setenv(VARIABLE, server.url.replace(PASSWORD, "wrong-one"))
    with pytest.raises(InputError, match="authentication failed") as caught:
        Storage(tmp_path)
    assert "wrong-one" not in str(caught.value)


def test_processes_that_start_at_once_evaluate_every_allocation_once(tmp_path, database):
    all_have_one = multiprocessing.Barrier(3)

    def work():
        study = open_study(tmp_path, tmp_path.name)
        pending = study.ask(9)
        all_have_one.wait(300)
        while pending is not None:
            study.records.put(record(pending).in_run("r"))
            study.tell(pending)
            pending = study.ask(9)

    for child in [process(work) for _ in range(3)]:
        child.join()
        assert child.exitcode == 0
    trials = open_study(tmp_path, tmp_path.name).trials(TrialState.COMPLETE)
    pending = [t for t in trials if "duplicate_of" not in t.user_attrs]
    allocations = {t.user_attrs["allocation"] for t in pending}
    assert len(pending) == len(allocations) == 9
    assert {str(a) for a in [a for _, a in SPACE.rules()][:4]} <= allocations
    assert len({t.user_attrs["owner"] for t in pending}) == 3


def test_the_lock_of_a_killed_process_is_free(tmp_path, database):
    held = multiprocessing.Event()

    def hold():
        open_study(tmp_path, tmp_path.name).exclusively(lambda: (held.set(), time.sleep(900)))

    def ask():
        open_study(tmp_path, tmp_path.name).ask()

    holder = process(hold)
    assert held.wait(300)
    other = process(ask)
    other.join(1.5)
    assert other.is_alive()
    holder.kill()
    other.join(300)
    assert other.exitcode == 0


def test_the_limit_counts_running_trials_of_all_processes(tmp_path):
    first, second = open_study(tmp_path), open_study(tmp_path)
    running = [first.ask(7) for _ in range(7)]
    assert None not in running
    assert second.ask(7) is None
    first.give_up(running[-1], retry=True)
    assert second.ask(7).allocation == running[-1].allocation


def test_a_trial_that_ends_during_the_count_is_counted(tmp_path, monkeypatch):
    first, second = open_study(tmp_path), open_study(tmp_path)
    finish(first, 3)
    running, read, reads = first.ask(), second.trials, []

    def end_in_between(*states):
        result = read(*states)
        reads.append(states)
        if len(reads) == 2:  # the first one looks for the dead, the next two count
            first.records.put(record(running).in_run("r"))
            first.tell(running)
        return result

    monkeypatch.setattr(second, "trials", end_in_between)
    assert second.ask(4) is None
    assert len(second.evaluated()) == 4


def test_a_file_that_is_removed_in_the_middle_is_reported(tmp_path):
    study = open_study(tmp_path)
    finish(study, 2)
    (tmp_path / "studies.db").unlink()
    with pytest.raises(StorageError, match="was removed or replaced while it was in use"):
        study.ask()
    assert len(list((tmp_path / "studies" / "s").glob("*.json"))) == 2


def test_a_study_that_is_deleted_in_the_middle_is_reported(tmp_path):
    study = open_study(tmp_path)
    pending = study.ask()
    study.records.put(record(pending).in_run("r"))
    optuna.delete_study(study_name="s", storage=open_study(tmp_path, "t").storage.optuna)
    with pytest.raises(StorageError, match="it was deleted"):
        study.tell(pending)
    with pytest.raises(StorageError):
        study.ask()
