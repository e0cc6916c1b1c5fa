"""The experts of transformers: gptq at 3 bits is closer than rounding, in every layout."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
import transformers
from mmq_plugins.quantizers.gptq import Gptq

from mmq.quantization.expert_inputs import ExpertInputs
from mmq.quantization.modules import quantize_module
from mmq.tensors.matrices import matrices
from mmq.tensors.quantized_weight import round_to_nearest

TEXT = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "num_experts": 4,
    "moe_intermediate_size": 32, "num_experts_per_tok": 2, "decoder_sparse_step": 1,
    "rope_parameters": {
        "rope_type": "default", "mrope_section": [2, 3, 3], "mrope_interleaved": True,
        "rope_theta": 10000.0,
    },
}  # fmt: skip
VISION = {
    "depth": 3, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 8,
    "out_hidden_size": 64, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1],
}  # fmt: skip


@pytest.fixture(scope="module")
def model():
    """A tiny Qwen3-VL-MoE with forwards on pictures and text."""
    if not hasattr(transformers, "Qwen3VLMoeConfig"):
        pytest.skip("this version of transformers has no Qwen3-VL-MoE")
    torch.manual_seed(0)
    config = transformers.Qwen3VLMoeConfig(
        text_config=TEXT, vision_config=VISION, image_token_id=4, vision_start_token_id=5,
        vision_end_token_id=6, video_token_id=7,
    )  # fmt: skip
    root = transformers.Qwen3VLMoeForConditionalGeneration(config).eval().requires_grad_(False)
    for parameter in root.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    forwards = []
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(20, 500, (1, 40), generator=generator)
        ids[0, 2:8] = torch.tensor([5, 4, 4, 4, 4, 6])
        forwards.append(partial(
            root, input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False,
            pixel_values=torch.randn(16, 384, generator=generator),
            image_grid_thw=torch.tensor([[1, 4, 4]]), mm_token_type_ids=(ids == 4).long(),
        ))  # fmt: skip
    return root, forwards


@pytest.mark.parametrize("order", ["full_precision", "sequential"])
def test_the_experts_of_qwen3_vl_moe_are_closer_than_round_to_nearests(model, order):
    root, forwards = model
    path = "model.language_model.layers"
    quantizer = Gptq(group_size=32, calibration_inputs=order)
    solved = quantize_module(root, forwards, quantizer, [3], path, quiet=True)[3]
    experts = {name: m for name, m in matrices(root) if m.expert is not None}
    assert experts.keys() < solved.keys()
    assert len(experts) == 2 * 4 * 2
    rows = inputs_of(experts, forwards)
    for name, matrix in experts.items():
        plain = round_to_nearest(matrix.weight, 3, 32).dequantize()
        own, rounded = (
            (rows[name] @ (matrix.weight - w).T).norm()
            for w in (solved[name].weight.dequantize(), plain)
        )
        assert solved[name].note == ""
        assert own < rounded, name


@torch.no_grad()
def inputs_of(experts, forwards):
    rows = {}
    for forward in forwards:
        with ExpertInputs(experts, lambda name, x: rows.setdefault(name, []).append(x)):
            forward()
    return {name: torch.cat(parts) for name, parts in rows.items()}


def routed(module, tokens):
    chosen = torch.arange(2 * tokens.shape[0]).reshape(-1, 2) % 3  # the last of four is unused
    return module(tokens, chosen, torch.full((len(tokens), 2), 0.5))


def sorted_by_expert(module, tokens):
    return module(torch.cat([tokens, tokens * 0, tokens, tokens]))  # the second gets no tokens


LAYOUTS = {  # class: how it is called, and the index of the expert without tokens
    "llama4.Llama4TextExperts": (sorted_by_expert, 1),
    "aria.AriaExperts": (routed, 3),
    "deepseek_v3.DeepseekV3Experts": (routed, 3),
    "ernie4_5_vl_moe.Ernie4_5_VLMoeMoeExperts": (routed, 3),
    "glm4v_moe.Glm4vMoeTextExperts": (routed, 3),
    "nemotron_h.NemotronHExperts": (routed, 3),
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_every_layout_of_experts_is_followed_token_by_token(kind):
    module, name = kind.split(".")
    source = pytest.importorskip(f"transformers.models.{module}.modeling_{module}")
    if not hasattr(source, name):
        pytest.skip(f"this version of transformers has no {name}")
    config = SimpleNamespace(
        hidden_size=16, intermediate_size=24, moe_intermediate_size=24, hidden_act="silu",
        num_local_experts=4, n_routed_experts=4, num_experts=4, moe_num_experts=4,
        mlp_hidden_act="silu", moe_latent_size=None, _experts_implementation="grouped_mm",
    )  # fmt: skip
    config.moe_intermediate_size = [24, 24] if module.startswith("ernie") else 24
    experts = make(getattr(source, name), config)
    layers = dict(matrices(experts))
    call, unused = LAYOUTS[kind]
    tokens, rows = torch.randn(6, 16), {}
    with ExpertInputs(layers, lambda name, x: rows.setdefault(name, []).append(x)):
        call(experts, tokens)
    assert config._experts_implementation == "grouped_mm"
    reached = {layer: torch.cat(parts) for layer, parts in rows.items()}
    assert {layers[layer].expert for layer in layers.keys() - reached.keys()} == {unused}
    for layer, inputs in reached.items():
        assert inputs.shape[1] == layers[layer].shape[1]
        if not layer.startswith("down"):
            assert all(bool((tokens == row).all(-1).any()) for row in inputs)


def make(kind, config):
    """An experts module with random weights."""
    try:
        experts = kind(config)
    except TypeError:
        experts = kind(config, 24)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return experts.requires_grad_(False)
