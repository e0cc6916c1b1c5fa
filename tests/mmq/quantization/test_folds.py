"""A norm takes an input scale only where that changes no bit."""

import torch
from torch import nn

from mmq.quantization.blocks import Arguments, Block, Call
from mmq.quantization.folds import norms_before
from mmq.tensors.matrices import matrices


class Pre(nn.Module):
    """Two layers behind a norm, and one behind an activation."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.a, self.b, self.c = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x):
        read = self.norm(x)
        return x + self.c(torch.nn.functional.gelu(self.a(read) * self.b(read)))


class Post(Pre):
    """The norm's output is also what is added to."""

    def forward(self, x):
        x = self.norm(x)
        return x + self.c(self.a(x) * self.b(x))


class OneMore(Pre):
    """The norm multiplies by its weight plus one."""

    def __init__(self):
        super().__init__()
        self.norm = PlusOneNorm(8)


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
    found = norms_before(block, [call], 0)
    assert all(torch.equal(p, before[name]) for name, p in module.named_parameters())
    return found


def test_layers_that_read_a_norm_alone_fold_and_others_do_not():
    assert folds(Pre()) == {"m.a": "norm", "m.b": "norm"}


def test_a_norm_that_is_read_elsewhere_takes_none():
    assert folds(Post()) == {}


def test_a_norm_that_does_not_multiply_by_its_weight_takes_none():
    assert folds(OneMore()) == {}


def test_without_calls_nothing_folds():
    assert norms_before(Block(Pre(), {}), [], 0) == {}
