"""An exported folder appears complete and verified, or not at all."""

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from exporting import OffByOne, Talkative, Unseeing, UnseeingExact, session_for
from mmq_plugins.targets.torch_checkpoint import TorchCheckpoint
from safetensors.torch import load_file

from mmq.allocation.allocation import BitAllocation
from mmq.config import EvalOptions
from mmq.errors import InputError
from mmq.export import checkpoint_writer, run
from mmq.export.facts import read_facts
from mmq.export.run import export_model
from mmq.export.session import ExportSession
from mmq.export.verify import UnverifiedError
from mmq.studies.joint_tasks import prepare_joint
from mmq.system.home import home

PAUSING = """
import sys, time
from pathlib import Path
from exporting import session_for
from mmq.export import checkpoint
from mmq.export.layers import ModelLayers

def pausing(layers):
    for layer in real(layers):
        if len(list(Path(f"{sys.argv[1]}.partial").glob("model-*"))) >= int(sys.argv[2]):
            Path("paused").touch()
            time.sleep(900)
        yield layer

real, ModelLayers.__iter__ = ModelLayers.__iter__, pausing
plan = checkpoint.plan_shards
checkpoint.plan_shards = lambda units, limit: plan(units, 200_000)
session_for("embedded-retrieval", "vit=4,qformer=3").run(Path(sys.argv[1]), 0)
"""


def export(session, out, samples=4):
    return session.run(out, samples)


def test_an_export_is_proven_and_describes_itself(tmp_path):
    out = tmp_path / "mine"
    session = session_for("embedded-retrieval", "vit=4,qformer=8")
    report, proof = export(session, out)
    assert not proof.failures
    assert (proof.weights.equal, proof.weights.layers) == (64, 64)
    assert proof.bytes.disk == proof.bytes.promised == session.plan.promised_bytes
    assert proof.outputs.samples == 4
    assert proof.outputs.blind.value < proof.outputs.engine.value
    card = (out / "README.md").read_text()
    assert "vit=4 qformer=8" in card
    assert "64 of 64 weights read back bit for bit" in card
    assert read_facts(out)["allocation"] == {"vit": 4, "qformer": 8}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine"]
    assert report.files["model.safetensors"] == (out / "model.safetensors").stat().st_size


@pytest.mark.parametrize(
    ("model", "bits", "target", "options"),
    [
        ("embedded-llava", "llm.end.attn=8,vit=4", "gguf", {"symmetric": True, "group_size": 32}),
        ("embedded-retrieval", "vit=6,qformer=3", "compressed-tensors", {"group_size": 16}),
    ],
)
def test_the_promised_bytes_count_scales_that_need_float32(tmp_path, model, bits, target, options):
    pytest.importorskip(target.replace("-", "_"), reason=f"needs mmq[{target}]")
    session = session_for(model, bits, target, **options)
    before = session.plan.promised_bytes
    layers = session.layers()
    promised = session.plan.promised_bytes
    assert promised > before
    report, _ = export_model(session.plan, layers, tmp_path / "mine", quiet=True)
    assert sum(report.files.values()) == promised


def test_every_task_of_a_joint_answer_is_proven(tmp_path):
    options = EvalOptions(
        model="embedded-llava", task="vqa,gqa", quantizer="rtn", limit="vqa=4,gqa=3"
    )
    allocation = BitAllocation.parse("vit=8")
    prepared = prepare_joint(
        options, {"num-beams": "1"}, "worst", lambda parts: [allocation.over(parts)]
    )
    session = ExportSession.of(prepared, allocation, "torch", TorchCheckpoint(dtype="float32"))
    session.quiet = True
    _, proof = session.run(tmp_path / "mine", 2)
    compared = proof.outputs, *proof.further
    assert [(each.task, each.metric, each.samples) for each in compared] == [
        ("vqa", "vqa/accuracy", 2), ("gqa", "gqa/accuracy", 2),
    ]  # fmt: skip
    assert "gqa: 2 of 2 outputs equal" in (tmp_path / "mine" / "README.md").read_text()
    different = replace(proof.further[0], exact=True, different=("7",))
    (failure,) = replace(proof, further=(different,)).failures
    assert failure == "gqa: 1 of 2 outputs differ (samples 7)"


def test_an_existing_folder_is_not_changed(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="mine exists; remove it, or give another folder"):
        export(session_for("embedded-retrieval", "vit=4"), tmp_path / "mine")
    assert not list((tmp_path / "mine").iterdir())


def test_a_foreign_folder_is_not_removed(tmp_path):
    (tmp_path / "mine.partial").mkdir()
    (tmp_path / "mine.partial" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="was not written by mmq"):
        export(session_for("embedded-retrieval", "vit=4"), tmp_path / "mine")
    assert (tmp_path / "mine.partial" / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (OffByOne(), "2 of 40 weights differ from the quantized model's or are missing"),
        (Talkative(), "bytes instead of the planned"),
        (UnseeingExact(), "of 6 outputs differ"),
        (Unseeing(), "it does not use them"),
    ],
    ids=["weights", "bytes", "outputs", "pictures"],
)
def test_a_failed_proof_is_an_error_and_withholds_the_folder_name(tmp_path, target, reason):
    session = session_for("embedded-retrieval", "qformer=8", target)
    with pytest.raises(UnverifiedError, match=reason):
        export(session, tmp_path / "mine", 6)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.unverified"]
    assert "**Failed:**" in (tmp_path / "mine.unverified" / "README.md").read_text()


def test_without_verification_the_card_says_so(tmp_path):
    _, proof = export(
        session_for("embedded-retrieval", "qformer=2", OffByOne()), tmp_path / "m", 0
    )
    assert proof is None
    assert "not verified (--no-verify)" in (tmp_path / "m" / "README.md").read_text()


def test_a_disk_that_is_too_small_is_refused_before_a_byte_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "free", lambda path: 1000.0)
    with pytest.raises(InputError, match=r"will take 4\.\d MiB, and its disk has"):
        export(session_for("embedded-retrieval", "vit=4"), tmp_path / "mine")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_is_named_and_what_was_written_is_resumed(tmp_path, monkeypatch):
    real = checkpoint_writer.ShardWriter._write

    def full(self, name, tensor):
        if name.startswith("qformer"):
            raise OSError(errno.ENOSPC, "No space left on device", str(self._path))
        real(self, name, tensor)

    session = session_for("embedded-retrieval", "vit=4")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_writer.ShardWriter, "_write", full)
        with pytest.raises(OSError, match="No space left on device: .*model.safetensors"):
            export(session, tmp_path / "mine")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.partial"]
    export(session, tmp_path / "mine")
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_leftovers_of_another_export_are_removed(tmp_path):
    partial = tmp_path / "mine.partial"
    partial.mkdir()
    (partial / "mmq_export.json").write_text('{"key": "another"}')
    (partial / "stale.bin").write_bytes(bytes(100))
    export(session_for("embedded-retrieval", "vit=4"), tmp_path / "mine")
    assert not (tmp_path / "mine" / "stale.bin").exists()


def test_two_processes_do_not_write_one_folder(tmp_path):
    session = session_for("embedded-retrieval", "vit=4")
    with (
        run._partial_folder(session.plan, tmp_path / "mine"),
        pytest.raises(InputError, match="another process is exporting"),
    ):
        export(session, tmp_path / "mine")


def start(out, pause_at):
    """Export; stop when this many files are written."""
    folders = [os.path.dirname(os.path.dirname(os.path.dirname(__file__))), *sys.path]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", PAUSING, str(out), str(pause_at)], env=env, cwd=out.parent
    )


def test_kill_9_in_the_middle_leaves_no_folder_and_the_next_export_resumes(tmp_path):
    assert os.environ["MMQ_HOME"] == str(home())
    out, partial = tmp_path / "mine", tmp_path / "mine.partial"
    session_for("embedded-retrieval", "vit=4,qformer=3").layers()  # quantized: writing is next
    process = start(out, pause_at=2)
    try:
        while not (tmp_path / "paused").exists():
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not out.exists()
    written = {p.name: p.stat().st_mtime_ns for p in partial.glob("model-*.safetensors")}
    again = start(out, pause_at=1000)
    assert again.wait() == 0
    assert not partial.exists()
    assert written.items() <= {p.name: p.stat().st_mtime_ns for p in out.iterdir()}.items()
    expected = tmp_path / "expected"
    export(session_for("embedded-retrieval", "vit=4,qformer=3"), expected)
    whole = load_file(expected / "model.safetensors")
    parts = {k: v for p in out.glob("model-*.safetensors") for k, v in load_file(p).items()}
    assert whole.keys() == parts.keys()
    assert all((whole[k] == parts[k]).all() for k in whole)
