"""IRs that optimum-intel writes are rewritten, and answer as simulated: `make test-optimum`.

optimum-intel runs in an environment of its own.
"""

import json
import subprocess

import gguf_families
import pytest
from exporting import session_for
from gguf_families import QwenProcessor
from mmq_plugins.models.generic import Generic
from mmq_plugins.targets.openvino import OpenVino
from mmq_plugins.targets.optimum_engine import PYTHON, optimum_python
from mmq_plugins.targets.own_environment import clean_variables
from safetensors.torch import load_file, save_file
from tiny_vlms import save_vlm

pytest.importorskip("openvino", reason="pip install 'mmq[openvino]'")
pytestmark = pytest.mark.skipif(
    not optimum_python(), reason=f"{PYTHON} names no Python with optimum-intel: make test-optimum"
)


def halved(folder, rename=lambda name: name):
    """Store a checkpoint in float16, its tensors renamed."""
    path = folder / "model.safetensors"
    tensors = {rename(name): tensor.half() for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def save_gemma3(folder):
    """A tiny Gemma 3 in float16, its tensors named as in published checkpoints."""
    save_vlm("gemma3", folder)
    halved(folder, lambda name: name.replace("vision_tower.", "vision_tower.vision_model."))


def save_qwen2_5_vl(folder):
    """A tiny Qwen2.5-VL in float16; its configuration is written as in published checkpoints."""
    gguf_families.save_qwen2_5_vl(folder)
    halved(folder)
    config = json.loads((folder / "config.json").read_text())
    rope = config["text_config"].pop("rope_parameters")
    config["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    config["text_config"] |= {"rope_scaling": config["rope_scaling"], "rope_theta": 10000.0}
    (folder / "config.json").write_text(json.dumps(config))


def write_ir(model, ir):
    """A model's IR by optimum-cli."""
    command = [
        optimum_python(), "-m", "optimum.commands.optimum_cli", "export", "openvino",
        "--model", str(model), "--task", "image-text-to-text", "--weight-format", "fp16", str(ir),
    ]  # fmt: skip
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, env=clean_variables()
    )
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder and the IR of a tiny Gemma 3."""
    folder = tmp_path_factory.mktemp("gemma3")
    save_gemma3(folder / "model")
    write_ir(folder / "model", folder / "ir")
    return folder / "model", folder / "ir"


@pytest.mark.parametrize(
    ("bits", "quantizer", "options"),
    [
        ("vit=4,llm=3", "rtn", {"group_size": 16, "symmetric": True}),
        ("vit=8,llm.attn=2,llm.ff=5", "rtn", {}),
        ("llm=4", "uniform", {}),
    ],
)
def test_a_rewritten_ir_answers_as_simulated(written, tmp_path, bits, quantizer, options):
    model, ir = written
    session = session_for(str(model), bits, OpenVino(from_=str(ir)), quantizer, **options)
    _, proof = session.run(tmp_path / "out", 4)
    assert not proof.failures
    assert proof.weights.equal == len(session.plan.specs)
    assert not proof.outputs.different


def test_a_vision_tower_in_several_graphs_is_rewritten_too(tmp_path, monkeypatch):
    model, ir = tmp_path / "model", tmp_path / "ir"
    monkeypatch.setattr(Generic, "load_processor", lambda self, source: QwenProcessor())
    save_qwen2_5_vl(model)
    write_ir(model, ir)
    options = {"group_size": 32, "symmetric": True}
    session = session_for(
        str(model), "vit=4,llm.attn=5,llm.ff=3", OpenVino(from_=str(ir)), **options
    )
    _, proof = session.run(tmp_path / "out", 4)
    assert not proof.failures
    assert proof.weights.equal == len(session.plan.specs)
    assert not proof.outputs.different
