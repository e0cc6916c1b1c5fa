import os
import shutil
from pathlib import Path

import pytest
from fork_server import ForkServer
from lanes import markers_of
from mariadb import mariadb
from postgres import postgres
from repeatable import seed, with_the_same_examples, without_waiting_for_the_disk

with_the_same_examples()
without_waiting_for_the_disk()
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"


def pytest_collection_modifyitems(items):
    """Mark the tests of the modules that lanes.py lists."""
    tests = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(tests):
            for name in markers_of(item.path.relative_to(tests).as_posix()):
                item.add_marker(name)


def pytest_runtest_setup():
    seed()  # before the fixtures


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory):
    """Data and artifacts of the tests in one folder per worker, never in the project's."""
    os.environ["MMQ_HOME"] = str(tmp_path_factory.mktemp("home"))
    import torch

    torch.set_num_threads(1)  # two test workers on two cores


@pytest.fixture(autouse=True)
def _no_inherited_run():
    """mlflow.set_experiment sets its id in the environment, where child processes read it."""
    for name in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory, _home):
    """Starts `mmq` processes without the seconds that imports take."""
    server = ForkServer(tmp_path_factory.mktemp("fork"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def server():
    with postgres() as running:
        yield running


@pytest.fixture(scope="session")
def mysql_server():
    with mariadb() as running:
        yield running


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A real MLflow store without experiments: creating one takes a second, copying it no time."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments(max_results=1)
    return path


@pytest.fixture
def store_uri(empty_store, tmp_path, monkeypatch):
    """A real MLflow store of the test's own; the working folder is the test's too."""
    import mlflow

    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    yield uri
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="session")
def exported_answer(tmp_path_factory, empty_store):
    """The selection of a search, exported for llama.cpp and registered in a store of its own."""
    pytest.importorskip("xllamacpp", reason="needs mmq[gguf]")
    from served import export_answer

    return export_answer(tmp_path_factory.mktemp("answer"), empty_store)


@pytest.fixture
def answer(exported_answer):
    """The same, with its store in use."""
    with exported_answer.in_use():
        yield exported_answer


@pytest.fixture
def evaluated(monkeypatch):
    """The allocations that were evaluated and not reused, each with its quantizer."""
    from mmq.studies import session as running

    seen, real = [], running.run_trial

    def watched(spec, *rest, **options):
        seen.append((spec.eval_spec.quantizer, str(spec.allocation)))
        return real(spec, *rest, **options)

    monkeypatch.setattr(running, "run_trial", watched)
    return seen
