"""compressed-tensors checkpoints, read by the package and by transformers."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
import transformers
from asking import silent
from exporting import session_for, simulated
from mmq_plugins.targets.compressed_tensors import CompressedTensors, encoded
from mmq_plugins.targets.ct_config import Packing, check_fused
from mmq_plugins.targets.ct_engines import ENGINES
from mmq_plugins.targets.ct_packing import unpack
from PIL import Image
from tiny_models import save_tiny

from mmq.contracts.target import WeightSpec
from mmq.errors import InputError
from mmq.evaluation.generating import evaluate
from mmq.tensors.affine import MappingType
from mmq.tensors.quantized_weight import round_to_nearest

package = pytest.importorskip("compressed_tensors", reason="pip install 'mmq[compressed-tensors]'")
needs_5 = pytest.mark.skipif(
    transformers.__version__ < "5", reason="transformers 4 loads compressed-tensors 0.14 alone"
)
MIXED = {
    "embedded-llava": "vit.front=2,vit.middle=3,vit.end=5,llm.attn=6,llm.ff=7",
    "embedded-blip2": "vit=5,qformer.attn=3,qformer.ff=16,projector=6,llm.attn=7,llm.ff=2",
    "embedded-retrieval": "vit.attn=4,vit.ff=6,qformer=3",
}
UNIFORM = {
    "embedded-llava": "vit=8,llm=4",
    "embedded-blip2": "vit=8,qformer=8,llm=8",
    "embedded-retrieval": "vit=2,qformer=2",
}


@needs_5
@pytest.mark.parametrize(
    ("model", "bits", "options"),
    [
        *((model, bits, {"symmetric": True, "group_size": 64}) for model, bits in UNIFORM.items()),
        *((model, bits, {"group_size": 32}) for model, bits in MIXED.items()),
        ("embedded-llava", "vit=4,llm=3,projector=5,head=6", {}),
    ],
)
def test_transformers_has_the_simulated_weights_and_outputs(tmp_path, model, bits, options):
    session = session_for(model, bits, "compressed-tensors", **options)
    out = tmp_path / "out"
    _, proof = session.run(out, 3)
    assert not proof.failures
    assert proof.weights.equal == len(session.plan.specs)
    expected = simulated(session)
    with session.plan.target.open(out, "cpu") as engine:
        for name in session.plan.specs:
            weight = engine.module.get_submodule(name).weight
            assert torch.equal(weight, expected.module.get_submodule(name).weight), name
        task = session.prepared.task
        with task:
            one, other = (evaluate(task, m, silent) for m in (expected, engine))
        assert [p.text for p in one.predictions] == [p.text for p in other.predictions]
        pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        first = expected.family.stages[0].compute
        assert torch.equal(first(expected.module, pixels), first(engine.module, pixels))


def targets(out):
    return json.loads((out / "config.json").read_text())["quantization_config"]


def matches(patterns, name):
    return any(re.match(pattern.removeprefix("re:"), name) for pattern in patterns)


NAMES = {  # of one layer under transformers 4, transformers 5, vLLM, and in files
    "embedded-llava": [
        ("vit", "model.vision_tower.vision_model.encoder.layers.1.self_attn.q_proj"),
        ("vit", "model.vision_tower.encoder.layers.1.self_attn.q_proj"),
        ("vit", "vision_tower.vision_model.encoder.layers.1.self_attn.q_proj"),
        ("llm", "model.language_model.layers.1.self_attn.q_proj"),
        ("llm", "language_model.model.layers.1.self_attn.q_proj"),
        ("", "lm_head"),
        ("", "language_model.lm_head"),
        ("", "model.multi_modal_projector.linear_1"),
        ("", "multi_modal_projector.linear_1"),
    ],
    "embedded-blip2": [
        ("vit", "vision_model.encoder.layers.1.self_attn.qkv"),
        ("vit", "encoder.layers.1.self_attn.qkv"),  # vLLM gives the tower no prefix
        ("qformer", "qformer.encoder.layer.1.attention.attention.query"),
        ("llm", "language_model.model.decoder.layers.1.self_attn.q_proj"),
        ("", "language_projection"),
        ("", "language_model.lm_head"),
    ],
}


@pytest.mark.parametrize("model", NAMES)
def test_layers_are_found_under_the_names_of_every_engine(tmp_path, model):
    bits = {"vit": 8, "llm": 4} | ({"qformer": 6} if model == "embedded-blip2" else {})
    text = ",".join(f"{name}={width}" for name, width in bits.items())
    session = session_for(model, text, "compressed-tensors", symmetric=True)
    session.run(tmp_path / "out", 0)
    config = targets(tmp_path / "out")
    groups = {g["weights"]["num_bits"]: g["targets"] for g in config["config_groups"].values()}
    assert groups.keys() == set(bits.values())
    for component, name in NAMES[model]:
        result = [width for width, patterns in groups.items() if matches(patterns, name)]
        assert result == ([bits[component]] if component else []), name
        assert matches(config["ignore"], name) == (not component), name


@needs_5
@pytest.mark.parametrize(
    ("model", "bits", "into_linears"),
    [
        ("embedded-llava", "llm=3", {"v_proj", "up_proj"}),
        ("embedded-blip2", "qformer=4,llm=4", {"value", "v_proj", "fc1"}),
    ],
)
def test_awqs_scales_are_folded_exactly(tmp_path, model, bits, into_linears):
    session = session_for(model, bits, "compressed-tensors", "awq", foldable=True, group_size=64)
    report, proof = session.run(tmp_path / "out", 4)
    assert not proof.failures
    assert proof.weights.equal == len(session.plan.specs)
    (note,) = [note for note in report.notes if note.startswith("Input scales of")]
    layers = session.layers()
    divided = {n for n in session.plan.specs if layers.output_scale(n) is not None}
    assert divided <= report.folded
    assert {name.rpartition(".")[2] for name in divided} == into_linears
    assert f"and {len(divided)} linear layers (powers of two: exact)" in note
    expected = simulated(session)
    with session.plan.target.open(tmp_path / "out", "cpu") as engine:
        assert torch.equal(logits(expected), logits(engine))


def logits(model):
    """Of the language model alone: every folded layer computes in it."""
    tokens = torch.arange(5, 17)[None]
    module = model.module.model if hasattr(model.module, "lm_head") else model.module
    with torch.no_grad():
        return module.language_model(input_ids=tokens)[0]


def test_awqs_own_scales_are_refused_with_the_option_that_folds_them():
    with pytest.raises(InputError, match="quantize with awq's --foldable true"):
        session_for("embedded-llava", "llm=3", "compressed-tensors", "awq", group_size=64)


@needs_5
def test_any_architecture_of_transformers_is_exported(tmp_path):
    model = save_tiny("idefics3", tmp_path / "tiny")
    session = session_for(
        model, "vit=8,llm=3", "compressed-tensors", symmetric=True, group_size=16
    )
    _, proof = session.run(tmp_path / "out", 3)
    assert not proof.failures
    assert proof.weights.equal == len(session.plan.specs)


@needs_5
def test_a_tower_that_transformers_cannot_load_packed_is_refused_at_once(tmp_path):
    model = save_tiny("paligemma", tmp_path / "tiny")  # its SigLIP initializes packed layers
    with pytest.raises(InputError, match="cannot load packed weights of this model's vit"):
        session_for(model, "vit=8,llm=3", "compressed-tensors", symmetric=True)
    session = session_for(model, "llm=3", "compressed-tensors", symmetric=True)
    _, proof = session.run(tmp_path / "out", 3)
    assert not proof.failures


def test_layers_at_16_bits_in_a_component_are_ignored(tmp_path):
    session = session_for("embedded-llava", "vit=16,llm.attn=4", "compressed-tensors")
    session.run(tmp_path / "out", 0)
    ignore = targets(tmp_path / "out")["ignore"]
    assert matches(ignore, "model.vision_tower.encoder.layers.0.mlp.fc1")
    assert matches(ignore, "model.language_model.layers.3.mlp.up_proj")
    assert not matches(ignore, "model.language_model.layers.3.self_attn.q_proj")


def test_everything_beside_the_weights_is_copied(tmp_path):
    session = session_for("embedded-retrieval", "vit=4", "compressed-tensors")
    session.run(tmp_path / "out", 0)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    expected = {p.name for p in session.plan.source.folder.iterdir()}
    assert expected <= names


@needs_5
@pytest.mark.parametrize("model", ["embedded-llava", "embedded-blip2", "embedded-retrieval"])
def test_the_cards_command_asks_the_model_as_printed(tmp_path, model):
    session = session_for(model, UNIFORM[model], "compressed-tensors", symmetric=True)
    session.run(tmp_path / "out", 0)
    (command,) = re.findall(r"```bash\n(.*?)```", (tmp_path / "out/README.md").read_text(), re.S)
    Image.new("RGB", (64, 64), (200, 30, 30)).save(tmp_path / "PICTURE.png")
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    result = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=os.environ | {"PATH": path}, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.strip()


@pytest.mark.parametrize(
    ("engine", "spec", "component", "reason"),
    [
        ("transformers", WeightSpec(8, symmetric=False), "llm", "loads no packed zero points"),
        ("transformers", WeightSpec(4, input_scale=True), "llm", "no input scales"),
        ("transformers", WeightSpec(4, group_index=True), "llm", "no act-order"),
        ("transformers", WeightSpec(4, integer_zero_points=False), "llm", "integer zero points"),
        ("vllm-cpu", WeightSpec(3), "llm", "runs 4 bits symmetric"),
        ("vllm-cpu", WeightSpec(8, 32), "llm", "8 bits symmetric with one scale per row only"),
        ("vllm", WeightSpec(4, 16), "llm", "kernels for groups of 32, 64, 128, whole rows"),
        ("vllm", WeightSpec(4), "qformer", "at 16 bits only"),
        ("vllm", WeightSpec(4), "projector", "mmq writes projector at 16 bits for vllm"),
        ("vllm", WeightSpec(4, scale_dtype="float32"), "llm", "rounds scales to 16 bits"),
        ("sglang", WeightSpec(6), "llm", "runs 4, 8 bits symmetric"),
    ],
)
def test_each_engine_refuses_what_it_does_not_run(engine, spec, component, reason):
    assert reason in CompressedTensors(engine).refusal(spec, (64, 64), component)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_runs_4_bits_in_groups_of_64(engine):
    assert not CompressedTensors(engine).refusal(WeightSpec(4, 64), (64, 64), "llm")


def test_layers_that_an_engine_joins_must_be_alike():
    four, eight = (Packing.of(WeightSpec(bits), ENGINES["vllm"]) for bits in (4, 8))
    alike = {f"a.{name}": four for name in ("q_proj", "k_proj", "v_proj")}
    check_fused(alike, "vllm")
    with pytest.raises(InputError, match="vllm joins q_proj, k_proj, v_proj"):
        check_fused(alike | {"a.v_proj": eight}, "vllm")
    with pytest.raises(InputError, match=r"gate_proj .* at 16 bits"):
        check_fused({"a.up_proj": four}, "vllm")


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_planned_bits_are_those_of_the_packed_tensors(bits, symmetric, engine):
    target = CompressedTensors(engine)
    weight = round_to_nearest(torch.randn(40, 96), bits, 32, MappingType.of(symmetric))
    spec = WeightSpec.of(weight)
    if target.refusal(spec, (40, 96), "llm"):
        pytest.skip("refused")
    tensors = encoded(weight, Packing.of(spec, ENGINES[engine]))
    assert sum(t.nbytes for t in tensors.values()) * 8 == target.stored_bits((40, 96), spec)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
@pytest.mark.parametrize(
    ("engine", "group_size", "symmetric"),
    [("vllm", 32, True), ("vllm", 32, False), ("vllm-cpu", 64, True)],
)
def test_many_rows_are_unpacked_as_they_were_packed(bits, engine, group_size, symmetric):
    generator = torch.Generator().manual_seed(bits)
    weight = torch.randn(1100, 64, generator=generator)  # more rows than are unpacked at once
    quantized = round_to_nearest(weight, bits, group_size, MappingType.of(symmetric))
    packing = Packing.of(WeightSpec.of(quantized), ENGINES[engine])
    assert packing.with_8_bit_inputs == (engine == "vllm-cpu" and bits == 8)
    read = unpack(encoded(quantized, packing), packing.group(["re:layer"]))
    assert torch.equal(read, quantized.dequantize())
