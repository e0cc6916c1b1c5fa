"""`mmq quantize` as real processes: one is killed with SIGKILL, the next one resumes."""

import os
import time

import pytest
import torch
from mlflow import MlflowClient
from safetensors import safe_open

from mmq.allocation.allocation import BitAllocation
from mmq.artifacts.store import Store
from mmq.config import EvalOptions
from mmq.prepare import prepare
from mmq.system.home import home

WIDTHS = (2, 3, 4, 5, 6, 8)
PAIRS = 24
BLOCKS = {"vit": 6, "qformer": 4, "llm": 4}

PAUSING = """
import time
from pathlib import Path
from mmq.artifacts.store import Store
from mmq.cli import main

put, stored = Store.put, []

def pausing(self, key, *arguments, **options):
    put(self, key, *arguments, **options)
    stored.append(key)
    if len(stored) == {count}:
        Path("paused").touch()
        time.sleep(900)

Store.put = pausing
main()
"""


@pytest.fixture
def quantize(tmp_path, fork_server):
    """Start the command in an empty folder with a home and an MLflow store of its own.

    pause_after: stop once that many artifacts are stored.
    """
    (tmp_path / "home").mkdir()
    data = home() / "data"  # written once for all tests
    data.mkdir(parents=True, exist_ok=True)
    (tmp_path / "home" / "data").symlink_to(data)
    env = os.environ | {
        "MMQ_HOME": str(tmp_path / "home"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "OMP_NUM_THREADS": "1",
    }
    options = {"quantizer": "gptq", "limit": "8", "num-beams": "1"}
    options |= {"calibration-samples": PAIRS, "bits": ",".join(map(str, WIDTHS))}
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    started = []

    def start(pause_after=None):
        script = None
        if pause_after is not None:
            script = tmp_path / "pausing.py"
            script.write_text(PAUSING.format(count=pause_after))
        process = fork_server.start("quantize", *arguments, env=env, cwd=tmp_path, script=script)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def modified(root):
    """When each artifact of a store was written, by its file's name."""
    return {path.name: path.stat().st_mtime_ns for path in root.glob("*.safetensors")}


def kill_when_paused(process, folder):
    """SIGKILL once that many artifacts are there."""
    end = time.monotonic() + 600
    while not (folder / "paused").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert process.returncode == -9


def tensors(path):
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def uninterrupted(root):
    """A store filled for the same eval spec without interruption, in this process."""
    options = EvalOptions(quantizer="gptq", limit="8", calibration_samples=PAIRS)
    prepared = prepare(
        options,
        {"num-beams": "1"},
        lambda parts: [BitAllocation.uniform(parts, bits) for bits in WIDTHS],
    )
    artifacts = prepared.artifacts(Store(root), quiet=True)
    model = prepared.load()
    for name in model.components:
        artifacts.fill(model, name, WIDTHS)
    return artifacts.store


def statuses(folder):
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("mmq")
    return sorted(run.info.status for run in client.search_runs([experiment.experiment_id]))


def test_after_kill_9_the_same_command_repeats_at_most_one_block(quantize, tmp_path):
    root = tmp_path / "home" / "store"
    whole = len(WIDTHS) * sum(BLOCKS.values())
    inside = len(WIDTHS) * (BLOCKS["vit"] + 1) + 2  # among the Q-Former's blocks
    kill_when_paused(quantize(pause_after=inside), tmp_path)
    before = modified(root)
    assert len(before) == inside
    process = quantize()
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    after = modified(root)
    assert len(after) == whole
    store = Store(root)
    keys = {entry.path.name: entry.key for entry in store.entries()}
    again = {name for name in before if after[name] != before[name]}
    assert len({(keys[name]["component"], keys[name]["block"]) for name in again}) <= 1
    assert not any(entry.verify() for entry in store.entries())
    expected = uninterrupted(tmp_path / "whole")
    assert {entry.path.name for entry in expected.entries()} == set(after)
    for name in after:
        ours, theirs = tensors(root / name), tensors(expected.root / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[part], theirs[part]) for part in ours)
    assert statuses(tmp_path)[0] == "FINISHED"
