"""Experts are exported in the layout of the source's files, however transformers converts it."""

import pytest
import torch
import transformers
from mmq_plugins.targets.gguf import Gguf
from mmq_plugins.targets.torch_checkpoint import TorchCheckpoint
from safetensors.torch import load_file, save_file

from mmq.allocation.allocation import BitAllocation
from mmq.contracts import registry
from mmq.contracts.target import ExportedLayer, WeightSpec
from mmq.errors import InputError
from mmq.export.plan import check_layers
from mmq.export.source_checkpoint import SourceCheckpoint
from mmq.export.support import supported_widths
from mmq.models.skeleton import skeleton
from mmq.tensors.matrices import matrices
from mmq.tensors.quantized_weight import round_to_nearest

ROPE = {"rope_type": "default", "mrope_section": [3, 3, 2], "rope_theta": 10000.0}
TEXT = {
    "vocab_size": 64, "hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "num_experts": 4,
    "num_experts_per_tok": 2, "moe_intermediate_size": 16, "rope_parameters": ROPE,
}  # fmt: skip
VISION = {
    "depth": 1, "num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 128,
    "num_heads": 2, "num_attention_heads": 2, "patch_size": 8, "image_size": 32,
    "out_hidden_size": 64, "num_position_embeddings": 16,
}  # fmt: skip
KINDS = {  # kind: more of its text's and its tower's configuration
    "Qwen3VLMoe": ({}, {"deepstack_visual_indexes": [0]}),
    "Qwen3_5Moe": ({"layer_types": ["full_attention"], "shared_expert_intermediate_size": 16}, {}),
    "Ernie4_5_VLMoe": (
        {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": [16, 16],
         "mlp_layer_types": ["sparse"]}, {"hidden_act": "silu"},
    ),
    "Llama4": (
        {"num_local_experts": 4, "intermediate_size_mlp": 48, "interleave_moe_layer_step": 1,
         "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
        {"projector_output_dim": 64, "projector_input_dim": 64, "vision_output_dim": 64},
    ),
}  # fmt: skip
MODEL = "{}ForConditionalGeneration"


def saved(kind, folder, transposed=False):
    """A folder with a random model. transposed: with its experts as on the hub, (in, out)."""
    if not hasattr(transformers, MODEL.format(kind)):
        pytest.skip(f"this version of transformers has no {kind}")
    text, vision = KINDS[kind]
    config = getattr(transformers, f"{kind}Config")(
        text_config=TEXT | text, vision_config=VISION | vision
    )
    torch.manual_seed(0)
    model = getattr(transformers, MODEL.format(kind))(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    if transposed:
        path = folder / "model.safetensors"
        tensors = {
            name: tensor.transpose(1, 2).contiguous() if ".experts." in name else tensor
            for name, tensor in load_file(path).items()
        }
        save_file(tensors, path, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("kind", "transposed"),
    [("Qwen3VLMoe", False), ("Qwen3VLMoe", True), ("Qwen3_5Moe", False),
     ("Ernie4_5_VLMoe", False), ("Llama4", False)],
)  # fmt: skip
def test_exported_experts_are_what_transformers_loads(kind, transposed, tmp_path):
    source = saved(kind, tmp_path / "source", transposed)
    outline = skeleton(str(source))
    checkpoint = SourceCheckpoint.open(source, outline)
    layers = [(name, x) for name, c in outline.components.items() for x in c.layers]
    quantized = {x.name: round_to_nearest(checkpoint.weight(x).float(), 4) for _, x in layers}
    export = checkpoint.as_source(
        outline, "float32", {name: WeightSpec.of(w) for name, w in quantized.items()}
    )
    target, out = TorchCheckpoint(dtype="float32"), tmp_path / "out"
    out.mkdir()
    target.export(export, (ExportedLayer(x.name, n, quantized[x.name]) for n, x in layers), out)
    assert sum(p.stat().st_size for p in out.iterdir()) == target.planned_bytes(export)
    shapes = [
        {name: tensor.shape for name, tensor in load_file(f / "model.safetensors").items()}
        for f in (source, out)
    ]
    assert shapes[0] == shapes[1]
    expected = {name: weight.dequantize() for name, weight in quantized.items()}
    loaded = dict(matrices(getattr(transformers, MODEL.format(kind)).from_pretrained(out)))
    experts = [name for name, matrix in loaded.items() if matrix.expert is not None]
    assert len(experts) >= 8
    for weights in (dict(target.read_back(out)), {k: loaded[k].weight for k in quantized}):
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_other_targets_refuse_experts_with_what_works(tmp_path):
    source = saved("Llama4", tmp_path)
    outline, rtn = skeleton(str(source)), registry.load_class("quantizer", "rtn", object)()
    with pytest.raises(InputError, match=r"cannot store llm .*only the target torch.*: llm=16$"):
        check_layers("gguf", Gguf(), BitAllocation.of({"llm": 4}), rtn, outline)
    support = supported_widths("gguf", Gguf(), rtn, (), outline, (4, 16))
    assert "only the target torch" in support.dropped["llm", 4]
