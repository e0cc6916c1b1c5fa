"""A study's MLflow runs, shared by processes and machines: real stores, made-up scores."""

import multiprocessing
import os
import re

import mlflow
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow_server import MlflowServer
from mmq_search import progress_run
from mmq_search.progress_run import ProgressRun
from mmq_search.run import open_run
from mmq_search.sampler_setup import SamplerSetup
from mmq_search.status import status
from PIL import Image
from test_study import EVAL_SPEC, SPACE, open_study, record, result

from mmq.analysis.budgets import Budget
from mmq.errors import InputError
from mmq.studies.run import copy_trial
from mmq.studies.work_list import WorkList
from mmq.tracking import study_run, unreachable
from mmq.tracking.offline import RETRIES, TIMEOUT


@pytest.fixture
def store_uri(store_uri, tmp_path):
    MlflowClient(store_uri).create_experiment("e", f"{tmp_path}/artifacts")
    return store_uri


@pytest.fixture(autouse=True)
def _picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (4, 4)).save("x.jpg")  # the one that the made-up records are about


def work(study, run, count=1, tell=True):
    """Run trials as the search does."""
    for _ in range(count):
        pending = study.ask()
        spec, number = record(pending).spec, str(pending.trial.number)
        with run.trial_run(spec, **{"mmq.optuna_trial": number}) as trial:
            study.records.put(record(pending).in_run(trial.run_id))
            trial.finish(result(pending))
        if tell:
            study.tell(pending)


def found(store_uri, kind="trial"):
    client = MlflowClient(store_uri)
    experiment = client.get_experiment_by_name("e").experiment_id
    return client.search_runs([experiment], f"tags.`mmq.kind` = '{kind}'")


def statuses(store_uri, kind="trial"):
    return sorted(run.info.status for run in found(store_uri, kind))


def in_a_process(work):
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    return child


def test_processes_that_start_at_once_create_one_parent_run(store_uri, tmp_path):
    def start():
        open_run(open_study(tmp_path), "e", EVAL_SPEC)

    for child in [in_a_process(start) for _ in range(3)]:
        child.join()
        assert child.exitcode == 0
    assert len(found(store_uri, "study")) == 1


def test_the_last_process_to_leave_ends_the_parent_run(store_uri, tmp_path):
    first, second = open_study(tmp_path), open_study(tmp_path)
    running = first.ask()
    with open_run(second, "e", EVAL_SPEC):
        pass
    assert statuses(store_uri, "study") == ["RUNNING"]
    first.give_up(running, retry=True)
    with open_run(first, "e", EVAL_SPEC):
        pass
    assert statuses(store_uri, "study") == ["FINISHED"]


def killed_in_a_trial(tmp_path, whole):
    """A process dies in a trial: in the middle of it, or logged completely but not reported."""

    def die():
        study = open_study(tmp_path)
        run = open_run(study, "e", EVAL_SPEC)
        if whole:
            work(study, run, tell=False)
        else:
            pending = study.ask()
            number = str(pending.trial.number)
            block = run.trial_run(record(pending).spec, **{"mmq.optuna_trial": number})
            block.__enter__()
        os.kill(os.getpid(), 9)

    child = in_a_process(die)
    child.join()
    assert child.exitcode == -9


def test_the_run_of_a_killed_process_ends_killed_and_its_trial_is_requeued(store_uri, tmp_path):
    mid = open_study(tmp_path)
    killed_in_a_trial(tmp_path, whole=False)
    assert statuses(store_uri) == ["RUNNING"]
    allocations = [str(mid.ask().allocation) for _ in range(7)]
    assert statuses(store_uri) == ["KILLED"]
    assert "vit=16 llm=16" in allocations


def test_a_killed_copy_still_names_its_original(store_uri, tmp_path):
    def take_over():
        study = open_study(tmp_path)
        run, pending = open_run(study, "e", EVAL_SPEC), study.ask()
        original = record(pending).in_run("original")

        def save(copy):
            study.records.put(copy)
            os.kill(os.getpid(), 9)

        copy_trial(run, record(pending).spec, original, save, **{"mmq.optuna_trial": "0"})

    child = in_a_process(take_over)
    child.join()
    assert child.exitcode == -9
    study = open_study(tmp_path)
    assert len(study.evaluated()) == 1
    (copy,) = found(store_uri)
    assert copy.info.status == "FINISHED"
    assert copy.data.tags["mmq.recorded_by"] == "original"
    assert copy.data.metrics["score"] == 80


def test_two_studies_on_one_store_do_not_disturb_each_other(store_uri, tmp_path):
    other = open_study(tmp_path, "t")
    pending, run = other.ask(), open_run(other, "e", EVAL_SPEC)
    with run.trial_run(record(pending).spec, **{"mmq.optuna_trial": str(pending.trial.number)}):
        killed_in_a_trial(tmp_path, whole=False)
        open_study(tmp_path)
        by_study = {r.data.tags["mmq.study"]: r.info.status for r in found(store_uri)}
        assert by_study == {"s": "KILLED", "t": "RUNNING"}
        assert other.others_at_work()  # its own trial
    assert len(found(store_uri, "study")) == 2


def test_a_trial_that_another_machine_logged_but_did_not_report_is_complete(store_uri, tmp_path):
    killed_in_a_trial(tmp_path, whole=True)
    for path in (tmp_path / "studies" / "s").glob("*.json"):
        path.unlink()  # it is on the other machine
    study = open_study(tmp_path)
    assert list(study.evaluated()) == ["vit=16 llm=16"]
    assert statuses(store_uri) == ["FINISHED"]


def test_sample_scores_of_another_machine_are_read_from_the_store(store_uri, tmp_path):
    study = open_study(tmp_path)
    work(study, open_run(study, "e", EVAL_SPEC))
    study.records.path("vit=16 llm=16").unlink()
    assert study.per_sample("vit=16 llm=16") == [80, 80]
    assert study.records.get("vit=16 llm=16").run_id == study.points()[0].run_id


def test_the_parent_run_shows_the_front_during_the_search(store_uri, tmp_path, monkeypatch):
    study = open_study(tmp_path)
    run = open_run(study, "e", EVAL_SPEC)
    live = ProgressRun(run, lambda: study.results(["a", "b"]))
    monkeypatch.setattr(progress_run, "MIN_INTERVAL", 3600)
    client = MlflowClient(store_uri)

    def files():
        return {f.path: f.file_size for f in client.list_artifacts(run.run_id)}

    work(study, run)
    live.update()
    assert set(files()) == {"front.json", "front.png"}
    shown, picture = client.get_run(run.run_id), files()["front.png"]
    assert "1 allocations evaluated" in shown.data.tags["mlflow.note.content"]
    work(study, run, 2)
    live.update()  # too soon after the last one
    assert files()["front.png"] == picture
    assert client.get_run(run.run_id).data.metrics["trials"] == 3
    live._last = -1e9
    live.update()
    now = client.get_run(run.run_id).data.tags["mlflow.note.content"]
    assert "3 allocations evaluated" in now
    assert "vit=3 llm=3" in now
    with live.finishing(last=lambda: True):
        pass
    assert "front.html" in files()


def test_status_reports_progress_and_where_to_look(store_uri, tmp_path, monkeypatch):
    monkeypatch.setenv("MMQ_HOME", str(tmp_path))
    study = open_study(tmp_path, setup=SamplerSetup(SPACE, Budget(max_bpw=6.0)))
    run = open_run(study, "e", EVAL_SPEC)
    study.save_request(10, None)
    work(study, run, 3)
    with WorkList(study.storage.database, "s").present():
        said = CliRunner().invoke(status, ["s"], catch_exceptions=False).output
        assert "; no trial is running at the moment.\nAt work:\n  command: " in said
    assert "not running" in CliRunner().invoke(status, ["s"], catch_exceptions=False).output
    study.give_up(study.ask(), retry=False)
    study.ask()
    output = CliRunner().invoke(status, ["s"], catch_exceptions=False).output
    assert (
        "Study s: 3 of 10 allocations evaluated, 1 running, 1 failed or interrupted, 0 pruned"
        in output
    )
    assert "left (1 running)" in output
    assert "\nbest under 6 bpw: vit=4 llm=4 (4.000 bpw, 4.000 stored), score 80\n" in output
    assert run.run_link() in output
    assert len(study.study.trials) == 7  # looking changes nothing
    again = CliRunner().invoke(status, [], catch_exceptions=False).output
    assert re.sub("Elapsed: .*", "", again) == re.sub("Elapsed: .*", "", output)
    with pytest.raises(InputError, match="Unknown study 'nowhere'. Available: s."):
        CliRunner().invoke(status, ["nowhere"], catch_exceptions=False)


def test_a_trial_is_logged_when_the_server_is_back(tmp_path, monkeypatch):
    server = MlflowServer(tmp_path)
    monkeypatch.setenv("MMQ_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    mlflow.set_tracking_uri(server.uri)
    monkeypatch.setenv(RETRIES, "0")  # else MLflow's client waits 4 minutes
    monkeypatch.setenv(TIMEOUT, "300")
    try:
        study = open_study(tmp_path)
        run = study_run("e", "s", [EVAL_SPEC], None)
        pending, known, later = (study.ask() for _ in range(3))
        original = record(known).in_run("original")
        with run.trial_run(record(pending).spec) as trial:
            copy_trial(run, record(known).spec, original, save=lambda _: server.kill())
            trial.finish(result(pending))
        waiting = [path.name.partition("@")[0] for path in (tmp_path / "unlogged").iterdir()]
        assert len(waiting) == 2
        assert trial.run_id in waiting
        with pytest.raises(MlflowException) as caught, run.trial_run(record(later).spec):
            pass
        assert unreachable(caught.value)  # such a trial is asked again
        server.start()
        work(study, run)
        assert statuses(server.uri) == ["FINISHED"] * 3
        assert not list((tmp_path / "unlogged").iterdir())
        client = MlflowClient(server.uri)
        for run_id in waiting:
            assert client.get_run(run_id).data.metrics["score"] == 80
            assert "record.json" in {f.path for f in client.list_artifacts(run_id)}
    finally:
        server.kill()
        mlflow.set_tracking_uri(None)
