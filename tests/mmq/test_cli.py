"""The command as a user meets it: real processes, real stores, real signals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mmq_plugins.embedded import blip2_checkpoint
from safetensors.torch import load_file, save_file

from mmq.cli import main
from mmq.errors import InputError
from mmq.models.loading import load_model
from mmq.system.home import home

CONFIGS = Path(__file__).parents[1] / "data" / "configs"
FOLDERS = {
    "empty": "",
    "pickled": (CONFIGS / "blip2-opt-2.7b.json").read_text(),
    "llava": (CONFIGS / "llava-1.5-7b.json").read_text(),
    "retrieval": (CONFIGS / "blip2-itm-vit-g-coco.json").read_text(),
    "bert": '{"model_type": "bert"}',
}
QUICK = ["--limit", "24", "--num-beams", "1"]


@pytest.fixture
def mmq(tmp_path, empty_store, fork_server):
    """Run a command in an empty folder with a store of its own."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")

    def environment():
        data = home() / "data"  # written once for all tests
        (tmp_path / ".mmq").mkdir(exist_ok=True)
        if not (tmp_path / ".mmq" / "data").exists():
            data.mkdir(parents=True, exist_ok=True)
            (tmp_path / ".mmq" / "data").symlink_to(data)
        drop = ("MMQ_HOME", "MLFLOW_TRACKING_URI")
        kept = {k: v for k, v in os.environ.items() if k not in drop}
        return kept | {"OMP_NUM_THREADS": "1"}

    def call(*arguments, start=False, script=None, **variables):
        begin = fork_server.start if start else fork_server.run
        return begin(*arguments, cwd=tmp_path, env=environment() | variables, script=script)

    return call


def runs(folder, experiment="mmq"):
    if not (folder / "mlflow.db").exists():  # a client would make it
        return []
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    found = client.get_experiment_by_name(experiment)
    return client.search_runs([found.experiment_id], max_results=100) if found else []


def test_plugins_are_listed_with_their_distribution(mmq):
    result = mmq("plugins", "--json")
    rows = json.loads(result.stdout)
    rtn = next(row for row in rows if row["name"] == "rtn")
    assert {"kind": "quantizer", "distribution": "mmq"}.items() <= rtn.items()
    assert all(row["state"] == "ok" for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "--quantizer", "rtm"], "Unknown quantizer 'rtm'. Did you mean 'rtn'"),
        (["search", "--task", "vqaa"], "Unknown evaluator 'vqaa'. Did you mean 'vqa'"),
        (["search", "--model", "nowhere"], "no such folder or bundled model"),
        (["search", "--model", "./nowhere"], "no such folder"),
        (["search", "--model", "FOLDER/empty"], "has no config.json"),
        (["search", "--model", "FOLDER/pickled"], "has no .safetensors file"),
        (["search", "--model", "embedded-retrieval"], "cannot write a short answer"),
        (["search", "--task", "retrieval"], "use a model with a matching head"),
        (["search", "--model", "FOLDER/bert"], "No model family for bert"),
        (["search", "--data", "nowhere"], "there is no folder 'nowhere'"),
        (["search", "--dataset", "vqav3"], "Did you mean 'vqav2'"),
        (["search", "--n-trial", "5"], "Did you mean 'n-trials'"),
        (["search", "--prompt", "no place"], "needs {} once"),
        (["search", "--bits", "2,9"], "9 is not one of [2, 3, 4, 5, 6, 7, 8, 16]"),
        (["search", "--bits", "two"], "write them like 2,3,4,8"),
        (["search", "--group-size", "48"], "group_size: 48 does not divide"),
        (["search", "--group-size", "x"], "'x' is not a whole number"),
        (["search", "--groupsize", "64"], "Unknown option 'groupsize'. Did you mean 'group-size'"),
        (["search", "--group-size"], "has no value"),
        (["search", "stray"], "unexpected argument 'stray'"),
        (["search", "--n-trials", "0"], "n-trials: 0 is not at least 1"),
        (["search", "--n-trials", "many"], "not a valid integer"),
        (["search", "--limit", "-1"], "limit: -1 is negative"),
        (["search", "--device", "cuda"], "torch sees 0 GPUs"),
        (["search", "--seed", "-1"], "seed: -1 is negative"),
        (["search", "--prune", "maybe"], "'maybe' is not true or false"),
        (["search", "--max-size-gib", "5GB"], "'5GB' is not a number of GiB; write e.g. 1.5"),
        (["search", "--min-score", "99%"], "or --max-drop 1% for 99% of the unquantized score"),
        (["search", "--fields", "image=photo"], "--data is the bundled 'scenes'"),
        (["evaluate", "--url", "http://127.0.0.1:9"], "Unknown option 'url'"),
        (["evaluate", "http://127.0.0.1:9"], "unexpected argument 'http://127.0.0.1:9'"),
        (["evaluate"], "endpoint: no address given"),
        (["search", "--device", "cuda:7"], "torch sees 0 GPUs"),
        (["search", "--device", "xpu"], "torch cannot compute on 'xpu' here"),
        (["search", "--device", "meta"], "torch cannot compute on 'meta' here"),
        (["search", "--device", "tpu-x"], "is not a device; choose e.g. auto, cpu, cuda"),
        (["search", "--dtype", "int8"], "'int8' is not one of"),
        (["search", "--study", "a b"], "is not a valid study name"),
        (["search", "--batch-size", "0"], "Error: batch_size: 0 is not at least 1"),
        (["trial", "--bits", "vit4"], "'vit4' is not component=bits"),
        (["trial", "--bits", "vti=4"], "Unknown component 'vti'. Did you mean 'vit'"),
        (["size", "--model", "embedded-blip2", "--bits", "llm=1"], "1 is not one of"),
        (["size"], "give either --model NAME or --config FILE"),
        (["size", "--config", "nowhere.json"], "'nowhere.json' is not a file"),
        (["train-embedded", "--images", "3"], "less than a batch"),
        (["serach"], "Unknown command 'serach'. Did you mean 'search'?"),
    ],
)
def test_bad_input_is_one_paragraph_and_exit_code_2(
    store_uri, tmp_path, capsys, monkeypatch, arguments, message
):
    def refuse(*arguments):
        raise AssertionError("the model was loaded")

    for name, config in FOLDERS.items():
        (tmp_path / name).mkdir()
        if config:
            (tmp_path / name / "config.json").write_text(config)
        if name != "pickled":
            (tmp_path / name / "model.safetensors").touch()
    arguments = [a.replace("FOLDER", str(tmp_path)) for a in arguments]
    monkeypatch.setattr("mmq.prepare.load_model", refuse)
    monkeypatch.setattr("signal.signal", lambda *arguments: None)
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    output = capsys.readouterr().err
    assert caught.value.code == 2
    assert message in output
    assert "\n\n" not in output.strip() or "Expected layouts" in output
    assert not runs(tmp_path)


def test_bad_input_ends_a_real_process_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "mmq", "search", "--quantizer", "rtm"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2
    assert "\nError: Unknown quantizer 'rtm'. Did you mean 'rtn'?" in result.stderr
    assert "Traceback" not in result.stderr
    assert not runs(tmp_path)


def test_a_deleted_experiment_of_the_same_name_is_refused(mmq, tmp_path):
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    client.delete_experiment(client.create_experiment("gone"))
    result = mmq("trial", *QUICK, "--experiment", "gone")
    assert result.returncode == 2
    assert "'gone' was deleted" in result.stderr


def test_an_unreachable_tracking_server_is_an_input_error(mmq):
    result = mmq(
        "trial", *QUICK, MLFLOW_TRACKING_URI="http://127.0.0.1:9",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
    )  # fmt: skip
    assert result.returncode == 2
    assert "MLFLOW_TRACKING_URI" in result.stderr


def test_a_trial_is_logged_completely(mmq, tmp_path):
    result = mmq("trial", *QUICK, "--bits", "vit=4,llm=3", "--group-size", "64")
    assert result.returncode == 0, result.stderr
    assert "vit=4 qformer=16 llm=3" in result.stdout
    (run,) = runs(tmp_path)
    assert run.info.status == "FINISHED"
    assert run.data.params["bits.llm"] == "3"
    assert run.data.params["quantizer.group_size"] == "64"
    assert run.data.params["evaluator.num_beams"] == "1"
    assert {"version.torch", "data.fingerprint", "model.fingerprint"} <= set(run.data.params)
    metrics = run.data.metrics
    assert metrics["score_low"] <= metrics["score"] <= metrics["score_high"]
    assert metrics["bpw"] < metrics["stored_bpw"] < 16
    assert {"seconds/quantize", "seconds/evaluate", "seconds/log"} <= set(metrics)
    assert run.inputs.dataset_inputs[0].dataset.digest == run.data.params["data.fingerprint"]
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"record.json", "layers.json", "predictions.json", "all_predictions.json"} <= names
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_experiment("mmq")
    record = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/record.json")
    assert record["allocation"] == {"vit": 4, "qformer": 16, "llm": 3}
    assert len(record["per_sample"]["vqa/accuracy"]) == 24
    table = mlflow.load_table("layers.json", run_ids=[run.info.run_id])
    assert len(table) == 80
    mlflow.set_tracking_uri(None)


def test_the_baseline_command_quantizes_nothing(mmq, tmp_path):
    result = mmq("evaluate-baseline", *QUICK, "--task", "captioning")
    assert result.returncode == 0, result.stderr
    assert "captioning/CIDEr" in result.stdout
    (run,) = runs(tmp_path)
    assert run.data.metrics["bpw"] == 16
    assert run.data.metrics["stored_bpw"] == 16


def search(mmq, n, **options):
    return mmq("search", *QUICK, "--bits", "3,4,16", "--n-trials", str(n), **options)


def test_a_search_resumes_and_is_quick_when_complete(mmq, tmp_path):
    first = search(mmq, 4)
    assert first.returncode == 0, first.stderr
    again = search(mmq, 6)
    assert again.returncode == 0, again.stderr
    assert "resumes: 4 of 6" in again.stderr
    result = runs(tmp_path)
    parents = [r for r in result if r.data.tags["mmq.kind"] == "study"]
    trials = [r for r in result if r.data.tags["mmq.kind"] == "trial"]
    assert len(parents) == 1
    assert len(trials) == 6
    assert {r.data.tags["mlflow.parentRunId"] for r in trials} == {parents[0].info.run_id}
    assert len({r.info.run_name for r in trials}) == 6
    parent = parents[0]
    assert parent.data.tags["mlflow.note.content"].splitlines()[0] in again.stdout
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    names = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {"front.json", "front.png", "front.html"} <= names
    plot = client.download_artifacts(parent.info.run_id, "front.html")
    with open(plot) as file:
        assert "cdn.plot" not in file.read(3000)  # the plot brings its library: it works offline


def test_a_study_is_never_spread_over_two_stores(mmq, tmp_path):
    assert search(mmq, 2).returncode == 0
    other = search(mmq, 2, MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/other.db")
    assert other.returncode == 2
    assert "is logged to the MLflow store" in other.stderr
    (tmp_path / "mlflow.db").unlink()
    gone = search(mmq, 2)
    assert gone.returncode == 2
    assert "which does not exist" in gone.stderr


def damaged(folder, damage):
    """A copy of the embedded model with damaged weights."""
    shutil.copytree(blip2_checkpoint(), folder)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    if damage == "missing":
        tensors = {k: v for k, v in tensors.items() if "decoder.layers.1" not in k}
    elif damage == "shape":
        name = next(k for k in tensors if k.endswith("fc1.weight"))
        tensors[name] = tensors[name][:8].clone()
    save_file(tensors, path, metadata={"format": "pt"})
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    return str(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [("missing", "lacks 16 weights"), ("shape", "another shape"), ("cut", "cannot be loaded")],
)
def test_a_damaged_checkpoint_is_refused_instead_of_filled_with_random_numbers(
    tmp_path, damage, message
):
    with pytest.raises(InputError, match=message):
        load_model(damaged(tmp_path / "model", damage))


PAUSING = """
import time
from pathlib import Path
import mmq.trial
from mmq.cli import main

evaluate, evaluated = mmq.trial.evaluate, []

def pausing(*arguments, **options):
    evaluated.append(arguments)
    if len(evaluated) == 3:
        Path("paused").touch()
        time.sleep(900)
    return evaluate(*arguments, **options)

mmq.trial.evaluate = pausing
main()
"""


@pytest.fixture
def paused(mmq, tmp_path):
    """Starts a search that stops in the middle of its third trial."""

    def start(*arguments):
        script = tmp_path / "pausing.py"
        script.write_text(PAUSING)
        process = mmq(*arguments, start=True, script=script)
        end = time.monotonic() + 600
        while not (tmp_path / "paused").exists():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < end
            time.sleep(0.05)
        return process

    return start


def statuses(folder, kind):
    return [r.info.status for r in runs(folder) if r.data.tags.get("mmq.kind") == kind]


SEARCH = ["search", *QUICK, "--n-trials", "4", "--bits", "3,4,16"]


@pytest.mark.parametrize("signals", [["SIGTERM"], ["SIGINT", "SIGTERM", "SIGUSR1"]])
def test_completed_work_survives_an_interrupt_and_the_same_command_resumes(
    mmq, paused, tmp_path, signals
):
    process = paused(*SEARCH)
    for name in signals:
        process.send_signal(signal.Signals[name])
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert "run the same command to resume" in output
    assert sorted(statuses(tmp_path, "trial")) == ["FINISHED", "FINISHED", "KILLED"]
    assert statuses(tmp_path, "study") == ["KILLED"]
    process = mmq(*SEARCH)
    assert "resumes: 2 of 4" in process.stderr
    assert statuses(tmp_path, "trial").count("FINISHED") == 4
    assert statuses(tmp_path, "study") == ["FINISHED"]


def test_after_kill_9_the_same_command_releases_and_resumes(mmq, paused, tmp_path):
    process = paused(*SEARCH)
    process.kill()
    process.communicate()
    assert "RUNNING" in statuses(tmp_path, "trial")
    result = mmq(*SEARCH)
    assert result.returncode == 0, result.stderr
    states = statuses(tmp_path, "trial")
    assert states.count("KILLED") == 1
    assert states.count("FINISHED") == 4
    assert statuses(tmp_path, "study") == ["FINISHED"]
