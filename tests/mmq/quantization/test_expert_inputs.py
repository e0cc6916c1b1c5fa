"""Each expert is calibrated with the tokens that are routed to it."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from mmq_plugins.quantizers.awq import Awq
from mmq_plugins.quantizers.gptq import Gptq
from mmq_plugins.quantizers.rtn import Rtn
from torch import nn

from mmq.errors import InputError
from mmq.quantization import sequential
from mmq.quantization.modules import quantize_module, write_
from mmq.tensors.layer_inputs import LayerInputs, output_error

EXPERTS, INNER, WIDTH = 4, 16, 32


class Experts(nn.Module):
    """A loop over experts, as in transformers; the last expert is never chosen."""

    def __init__(self):
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(EXPERTS, 2 * INNER, WIDTH) / 6)
        self.down_proj = nn.Parameter(torch.randn(EXPERTS, WIDTH, INNER) / 4)

    def forward(self, x, chosen):
        result = torch.zeros_like(x)
        for expert in chosen.unique():
            rows = chosen == expert
            gate, up = F.linear(x[rows], self.gate_up_proj[expert]).chunk(2, -1)
            result[rows] = F.linear(F.silu(gate) * up, self.down_proj[expert])
        return result


class AllExperts(nn.Module):
    """Products of all experts with masked tokens, stored as (in, out), as in Llama 4."""

    def __init__(self):
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(EXPERTS, WIDTH, 2 * INNER) / 6)
        self.down_proj = nn.Parameter(torch.randn(EXPERTS, INNER, WIDTH) / 4)

    def forward(self, x, chosen):
        masked = torch.stack([x * (chosen == k)[:, None] for k in range(EXPERTS)])
        gate, up = torch.bmm(masked, self.gate_up_proj).chunk(2, -1)
        return torch.bmm(F.silu(gate) * up, self.down_proj).sum(0)


class UnusualExperts(Experts):
    def forward(self, x, chosen):
        return x + torch.einsum("ti,oi->to", x, self.gate_up_proj[0][:, :]).sum()


class Block(nn.Module):
    """A router by the sign of two inputs: expert 3 gets nothing, expert 2 little."""

    def __init__(self, experts):
        super().__init__()
        self.proj, self.experts = nn.Linear(WIDTH, WIDTH), experts

    def forward(self, x):
        chosen = (x[..., 0] > 0).long() + (x[..., 1] > 4.0).long()
        flat = self.proj(x).reshape(-1, WIDTH)
        return x + self.experts(flat, chosen.reshape(-1)).reshape(x.shape)


def model_of(kind):
    torch.manual_seed(0)
    return nn.ModuleDict({"blocks": nn.ModuleList([Block(kind())])})


def quantized(model, quantizer):
    torch.manual_seed(1)
    inputs = torch.randn(4, 120, WIDTH) @ torch.diag(torch.linspace(2, 0.1, WIDTH))
    forwards = [lambda x=x: model["blocks"][0](x) for x in inputs]
    return inputs, quantize_module(model, forwards, quantizer, [3], "blocks", quiet=True)[3]


@pytest.mark.parametrize("order", ["full_precision", "sequential"])
@pytest.mark.parametrize("kind", [Experts, AllExperts])
@pytest.mark.parametrize("quantizer", [Gptq, Awq])
def test_an_experts_outputs_are_closer_than_round_to_nearests(kind, quantizer, order):
    model = model_of(kind)
    inputs, layers = quantized(model, quantizer(group_size=16, calibration_inputs=order))
    block = model["blocks"][0]
    chosen = ((inputs[..., 0] > 0).long() + (inputs[..., 1] > 4.0).long()).reshape(-1)
    rows = block.proj(inputs).reshape(-1, WIDTH).detach()
    for expert in (0, 1):
        sums = LayerInputs(WIDTH)
        sums.update_(rows[chosen == expert])
        weight = block.experts.gate_up_proj[expert].detach()
        weight = weight if kind is Experts else weight.T
        layer = layers[f"blocks.0.experts.gate_up_proj.{expert}"]
        plain = Rtn(group_size=16).quantize(weight, 3).dequantize()
        own = output_error(weight, layer.weight.dequantize(), sums.gram)
        assert own < output_error(weight, plain, sums.gram)
        if order == "full_precision":
            assert layer.output_error == pytest.approx(own, rel=1e-3)


@pytest.mark.parametrize("kind", [Experts, AllExperts])
def test_an_expert_that_few_or_no_tokens_reach_is_rounded_to_nearest_and_says_so(kind):
    model = model_of(kind)
    _, layers = quantized(model, Gptq(group_size=16))
    notes = [layers[f"blocks.0.experts.gate_up_proj.{k}"].note for k in range(EXPERTS)]
    assert notes[:2] == ["", ""]
    assert notes[2].startswith("only ")
    assert notes[3] == sequential.UNREACHED
    weight = model["blocks"][0].experts.down_proj[3].detach()
    expected = Rtn(group_size=16).quantize(weight if kind is Experts else weight.T, 3)
    codes = layers["blocks.0.experts.down_proj.3"].weight.codes
    assert torch.equal(codes, expected.codes)


def test_experts_in_several_passes_get_the_codes_of_one_pass(monkeypatch):
    _, once = quantized(model_of(Experts), Gptq(group_size=16))
    monkeypatch.setattr(sequential, "SUMS_BYTES", 3 * 4 * WIDTH**2)
    _, parts = quantized(model_of(Experts), Gptq(group_size=16))
    assert once.keys() == parts.keys()
    for name, layer in once.items():
        assert torch.equal(layer.weight.codes, parts[name].weight.codes)


def test_written_experts_are_dequantized_in_place():
    model = model_of(AllExperts)
    _, layers = quantized(model, Rtn(group_size=16))
    write_(model, layers)
    expected = layers["blocks.0.experts.down_proj.2"].weight.dequantize()
    assert torch.equal(model["blocks"][0].experts.down_proj[2], expected.T)


def test_experts_that_calibration_cannot_follow_are_refused():
    with pytest.raises(InputError, match="UnusualExperts multiplies by its experts in a way"):
        quantized(model_of(UnusualExperts), Gptq(group_size=16))
