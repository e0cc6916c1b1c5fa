"""IRs that optimum-intel writes are rewritten, and answer as simulated: `make test-optimum`.

optimum-intel runs in an environment of its own.
"""

import subprocess

import pytest
from exporting import session_for
from mmq_plugins.targets.openvino import OpenVino
from mmq_plugins.targets.optimum_engine import PYTHON, optimum_python
from mmq_plugins.targets.own_environment import clean_variables
from safetensors.torch import load_file, save_file
from tiny_vlms import save_vlm

pytest.importorskip("openvino", reason="pip install 'mmq[openvino]'")
pytestmark = pytest.mark.skipif(
    not optimum_python(), reason=f"{PYTHON} names no Python with optimum-intel: make test-optimum"
)


def save_gemma3(folder):
    """A tiny Gemma 3 in float16, its tensors named as in published checkpoints."""
    save_vlm("gemma3", folder)
    path = folder / "model.safetensors"
    named = {
        name.replace("vision_tower.", "vision_tower.vision_model."): tensor.half()
        for name, tensor in load_file(path).items()
    }
    save_file(named, path, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A tiny model's folder, and its IR by optimum-cli."""
    folder = tmp_path_factory.mktemp("gemma3")
    model, ir = folder / "model", folder / "ir"
    save_gemma3(model)
    command = [
        optimum_python(), "-m", "optimum.commands.optimum_cli", "export", "openvino",
        "--model", str(model), "--task", "image-text-to-text", "--weight-format", "fp16", str(ir),
    ]  # fmt: skip
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, env=clean_variables()
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return model, ir


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
