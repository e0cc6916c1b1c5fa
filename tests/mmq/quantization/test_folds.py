"""A norm or a linear layer takes an input scale only where that changes no bit."""

import torch
from torch import nn

from mmq.quantization.blocks import Arguments, Block, Call
from mmq.quantization.folds import exponent_limit, find_folds
from mmq.tensors.matrices import matrices
from mmq.tensors.quantized_weight import QuantizedWeight


class Pre(nn.Module):
    """Two layers after a norm, and one after an activation."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.a, self.b, self.c = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x):
        read = self.norm(x)
        return x + self.c(torch.nn.functional.gelu(self.a(read) * self.b(read)))


class Post(Pre):
    """The norm's output is also the residual."""

    def forward(self, x):
        x = self.norm(x)
        return x + self.c(self.a(x) * self.b(x))


class OneMore(Pre):
    """The norm multiplies by its weight plus one."""

    def __init__(self):
        super().__init__()
        self.norm = PlusOneNorm(8)


class Mlp(nn.Module):
    """Two layers with an activation between them."""

    def __init__(self, activation):
        super().__init__()
        self.fc1, self.fc2, self.activation = nn.Linear(8, 16), nn.Linear(16, 8), activation

    def forward(self, x):
        return x + self.fc2(self.activation(self.fc1(x)))


class GatedMlp(nn.Module):
    """Llama's: an activation on one of two factors."""

    def __init__(self):
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(8, 16), nn.Linear(8, 16)
        self.down_proj = nn.Linear(16, 8)

    def forward(self, x):
        gate = nn.functional.silu(self.gate_proj(x))
        return x + self.down_proj(gate * self.up_proj(x))


class Attention(nn.Module):
    """Two heads; keys and values are shared by both where kv_heads is 1."""

    def __init__(self, kv_heads=2):
        super().__init__()
        self.q, self.o = nn.Linear(8, 8), nn.Linear(8, 8)
        self.k, self.v = nn.Linear(8, 4 * kv_heads), nn.Linear(8, 4 * kv_heads)

    def forward(self, x):
        q, k, v = (p(x).unflatten(-1, (-1, 4)).transpose(1, 2) for p in (self.q, self.k, self.v))
        out = nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return x + self.o(out.transpose(1, 2).flatten(2))


class PlusOneNorm(nn.LayerNorm):
    def forward(self, x):
        return nn.functional.layer_norm(x, (8,), self.weight + 1, self.bias)


def folds(module):
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, generator=generator)
    block = Block(module, {f"m.{n}": m for n, m in matrices(module)})
    before = {name: p.clone() for name, p in module.named_parameters()}
    call = Call(torch.randn(2, 3, 8, generator=generator), [Arguments("", (), {})])
    folds = find_folds(block, [call], 0)
    assert all(torch.equal(p, before[name]) for name, p in module.named_parameters())
    return folds


def test_layers_that_read_a_norm_alone_fold_and_others_do_not():
    assert folds(Pre()) == {"m.a": "norm", "m.b": "norm"}


def test_a_norm_with_other_readers_takes_no_scale():
    assert folds(Post()) == {"m.c": "b"}  # the product's second factor


def test_a_norm_that_does_not_multiply_by_its_weight_takes_no_scale():
    assert folds(OneMore()) == {}


def test_without_calls_nothing_folds():
    assert find_folds(Block(Pre(), {}), [], 0) == {}


def test_a_linear_layer_takes_a_scale_through_relu_and_not_through_gelu():
    assert folds(Mlp(nn.ReLU())) == {"m.fc2": "fc1"}
    assert folds(Mlp(nn.GELU())) == {}


def test_up_takes_the_scale_of_down_and_gate_does_not():
    assert folds(GatedMlp()) == {"m.down_proj": "up_proj"}


def test_values_take_the_scale_of_the_output_unless_heads_share_them():
    assert folds(Attention()) == {"m.o": "v"}
    assert folds(Attention(kv_heads=1)) == {}


def test_a_limit_leaves_the_smallest_scale_of_each_row_exact():
    scale = torch.tensor([[2.0**-10, 2.0**-3], [2.0**-14, 1.0]], dtype=torch.float16)
    weight = QuantizedWeight(torch.zeros(2, 8, dtype=torch.uint8), scale, None, 4, 4)
    assert exponent_limit(weight).tolist() == [4, 0]
    divided = scale / torch.exp2(exponent_limit(weight))[:, None]
    assert torch.equal(divided.half().float(), divided)
