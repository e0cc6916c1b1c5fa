"""Workers share planned studies and quantization: each unit once, the result of one process.

The workers run in this process, one after the other; `test_workers.py` and the drills have real
ones.
"""

import json
import os
import re

import pytest
from mlflow import MlflowClient
from mmq_plugins.launchers.local import Local

from mmq.artifacts.store import Store
from mmq.cli import main
from mmq.contracts import Workers, WorkerState
from mmq.studies import sharing
from mmq.system.home import home
from mmq.system.worker import NUMBER, STUDY

TINY = ["--model", "embedded-llava", "--limit", "3", "--calibration-samples", "4"]


class EndedWorkers(Workers):
    def __init__(self, codes):
        self.codes = codes

    def poll(self):
        return [WorkerState(k, "here", 0.0, code) for k, code in enumerate(self.codes, start=1)]

    def stop(self):
        """Do nothing: the workers have ended."""


@pytest.fixture
def launched(monkeypatch):
    """The commands of workers, each of which is run in this process when it is started."""
    commands = []

    def run(number, command, environment):
        with monkeypatch.context() as patch:
            for name, value in {**environment, NUMBER: str(number)}.items():
                patch.setenv(name, value)
            try:
                main(command)
            except SystemExit as end:
                return end.code
            except KeyboardInterrupt:
                return 130
        return 0

    def start(self, request, output):
        commands.extend(request.commands)
        runs = enumerate(request.commands, start=1)
        return EndedWorkers([run(k, command, request.environment) for k, command in runs])

    monkeypatch.setattr(Local, "start", start)
    return commands


@pytest.fixture
def own_home(tmp_path, monkeypatch):
    """A home without records; its embedded data is shared."""
    data = home() / "data"
    data.mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("MMQ_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "data").symlink_to(data)


def trials(store_uri):
    client = MlflowClient(store_uri)
    experiment = client.get_experiment_by_name("mmq").experiment_id
    return client.search_runs([experiment], "tags.`mmq.kind` = 'trial'")


def scores(store_uri):
    finished = [run for run in trials(store_uri) if run.info.status == "FINISHED"]
    pairs = [(run.data.tags["mmq.allocation"], run.data.metrics["score"]) for run in finished]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


GRID = ["grid", *TINY, "--quantizer", "rtn", "--bits", "8,16"]


def test_workers_evaluate_a_grid_as_one_process_does(
    store_uri, own_home, launched, evaluated, capsys
):
    main([*GRID, "--workers", "2", "--study", "shared"])
    out = capsys.readouterr().out
    assert "shared, 4 allocations" in out
    assert [command[0] for command in launched] == ["grid"] * 2
    assert len(evaluated) == len(set(evaluated)) == 4
    main(["status", "shared"])
    out = capsys.readouterr().out
    assert "4 of 4 units done" in out
    assert "vit=8 llm=8" in out  # the front
    main(["status", "shared", "--json"])
    status = json.loads(capsys.readouterr().out)
    assert (status["units"], status["done"], status["workers"]) == (4, 4, [])
    assert {point["allocation"] for point in status["front"]} >= {"vit=8 llm=8"}
    assert status["links"]
    main([*GRID, "--workers", "2", "--study", "shared"])  # nothing is left to launch
    assert len(launched) == 2
    assert set(scores(store_uri)) == {allocation for _, allocation in evaluated}


def test_a_trial_whose_worker_died_after_saving_it_is_finished_and_not_evaluated_again(
    store_uri, own_home, launched, evaluated, monkeypatch, capsys
):
    real, deaths = sharing.WorkList.complete, []

    def dies_once(self, claim):
        if not deaths and "vit=8" in claim.unit:
            deaths.append(claim.unit)
            self._held.clear()  # as a killed process, which gives nothing back
            self.me = "elsewhere:1:1"
            raise KeyboardInterrupt
        real(self, claim)

    monkeypatch.setattr(sharing.WorkList, "complete", dies_once)
    main([*GRID, "--workers", "2"])
    assert deaths
    assert len(evaluated) == len(set(evaluated)) == 4
    assert len(scores(store_uri)) == 4


def test_workers_that_fail_leave_the_rest_for_the_next_command(
    store_uri, own_home, launched, evaluated, monkeypatch, capsys
):
    from mmq.studies import session

    real, broken = session.run_trial, [True]

    def run_trial(spec, *rest, **options):
        if broken and "vit=8 llm=8" in str(spec.allocation):
            raise RuntimeError("the card fell off the bus")
        return real(spec, *rest, **options)

    monkeypatch.setattr(session, "run_trial", run_trial)
    with pytest.raises(SystemExit, match="1"):
        main([*GRID, "--workers", "2"])
    assert "Error: 1 trial failed; run the same command to retry" in capsys.readouterr().err
    broken.clear()
    main([*GRID, "--workers", "2"])
    assert len(evaluated) == len(set(evaluated)) == 4


@pytest.mark.parametrize(("order", "bits"), [("full_precision", "4"), ("sequential", "4")])
def test_workers_fill_the_store_with_the_blocks_of_one_process(
    store_uri, own_home, launched, tmp_path, monkeypatch, capsys, order, bits
):
    options = [*TINY, "--quantizer", "gptq", "--bits", bits, "--calibration-inputs", order]
    written = []
    real = Store.put

    def put(self, key, layers, seconds=None):
        written.append(key.name)
        real(self, key, layers, seconds)

    monkeypatch.setattr(Store, "put", put)
    main(["quantize", *options, "--workers", "2"])
    together = {p.name: p.read_bytes() for p in (home() / "store").glob("*.safetensors")}
    assert len(written) == len(set(written)) == len(together)
    assert "vit           4" in capsys.readouterr().out
    os.rename(home() / "store", tmp_path / "shared")
    main(["quantize", *options])
    alone = {p.name for p in (home() / "store").glob("*.safetensors")}
    assert alone == set(together)
    for name in alone:
        one, other = (Store(folder) for folder in (home() / "store", tmp_path / "shared"))
        assert sealed_hash(one, name) == sealed_hash(other, name)


def sealed_hash(store, name):
    from mmq.system import sealed

    return sealed.read_texts(store.root / name)["sha256"]


@pytest.mark.cluster
def test_curves_and_comparisons_are_shared_too(store_uri, own_home, launched, evaluated, capsys):
    both = [*TINY, "--quantizers", "rtn,uniform", "--bits", "8", "--workers", "2"]
    main(["compare-quantizers", *both])
    assert len(evaluated) == len(set(evaluated)) == 3  # the unquantized model, and two at 8 bits
    main(["curves", *both])
    assert len(evaluated) == len(set(evaluated)) == 3 + 4
    assert [command[0] for command in launched] == ["compare-quantizers"] * 2 + ["curves"] * 2


def test_status_lists_workers_while_they_load_the_model(
    store_uri, own_home, launched, monkeypatch, capsys
):
    from mmq.studies import session

    real, statuses = session.check_calibration, []

    def check_calibration(model, artifacts):  # right after the model is loaded
        capsys.readouterr()
        main(["status", "loading", "--json"])
        statuses.append(json.loads(capsys.readouterr().out))
        real(model, artifacts)

    monkeypatch.setattr(session, "check_calibration", check_calibration)
    main([*GRID, "--workers", "2", "--study", "loading"])
    assert [worker["number"] for status in statuses for worker in status["workers"]] == [1, 2]
    assert all(worker["place"] for status in statuses for worker in status["workers"])


def test_a_worker_that_no_command_launched_says_so_and_evaluates_nothing(
    store_uri, own_home, evaluated, monkeypatch, capsys
):
    monkeypatch.setenv(NUMBER, "1")  # as in a script of --dry-run that is submitted by hand
    for command in ([*GRID, "--study", "by-hand"], ["quantize", *TINY, "--quantizer", "rtn"]):
        with pytest.raises(SystemExit, match="2"):
            main(command)
    first, second = re.findall(r"Error: (.*)", capsys.readouterr().err)
    assert "'by-hand' does not exist. Workers share what a command plans" in first
    assert "Without such a command, there is no work to share." in second
    assert evaluated == []


def test_a_worker_of_a_search_in_another_database_does_not_search_by_itself(
    store_uri, own_home, evaluated, tmp_path, monkeypatch, capsys
):
    search = ["search", *TINY, "--quantizer", "rtn", "--bits", "8,16", "--study", "s"]
    monkeypatch.setenv(NUMBER, "1")
    monkeypatch.setenv(STUDY, "a-run-in-the-database-of-the-command")
    with pytest.raises(SystemExit, match="2"):
        main(search)
    assert "does not have the study 's' of the command" in capsys.readouterr().err
    assert evaluated == []
