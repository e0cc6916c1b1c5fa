"""Weights as matrices: linear layers, experts in either orientation, routers left alone."""

import torch
from torch import nn

from mmq.tensors.matrices import matrices

EXPERTS, INNER, WIDTH = 3, 5, 8


class Experts(nn.Module):
    """Experts in the layout of most of transformers, (experts, out, in)."""

    def __init__(self, transposed=False, gated=True):
        super().__init__()
        shapes = [((1 + gated) * INNER, WIDTH), (WIDTH, INNER)]
        if transposed:
            shapes = [shape[::-1] for shape in shapes]
        self.gate_up_proj, self.down_proj = (
            nn.Parameter(torch.randn(EXPERTS, *shape)) for shape in shapes
        )


class Mixture(nn.Module):
    def __init__(self, experts):
        super().__init__()
        self.gate = nn.Linear(WIDTH, EXPERTS)
        self.experts = experts
        self.gate_proj = nn.Linear(WIDTH, WIDTH)


def shapes(root):
    return {name: matrix.shape for name, matrix in matrices(root)}


def test_every_expert_is_a_matrix_of_outputs_by_inputs_in_both_layouts():
    expected = {f"gate_up_proj.{k}": (2 * INNER, WIDTH) for k in range(EXPERTS)}
    expected |= {f"down_proj.{k}": (WIDTH, INNER) for k in range(EXPERTS)}
    assert shapes(Experts()) == shapes(Experts(transposed=True)) == expected


def test_a_declared_layout_decides_if_shapes_fit_both_layouts():
    experts = Experts(gated=False)
    assert shapes(experts)["down_proj.0"] == (WIDTH, INNER)
    experts.is_transposed = True
    assert shapes(experts)["down_proj.0"] == (INNER, WIDTH)


def test_writing_one_expert_changes_no_other():
    experts = Experts(transposed=True)
    before = experts.down_proj.clone()
    matrix = dict(matrices(experts))["down_proj.1"]
    assert torch.equal(matrix.weight, before[1].T)
    matrix.copy_(torch.ones(WIDTH, INNER))
    assert torch.equal(experts.down_proj[1], torch.ones(INNER, WIDTH))
    assert torch.equal(experts.down_proj[::2], before[::2])


def test_a_router_is_left_out_and_a_gate_projection_is_not():
    names = list(shapes(Mixture(Experts())))
    assert "gate" not in names
    assert "gate_proj" in names
    assert "gate" in shapes(nn.ModuleDict({"gate": nn.Linear(2, 2)}))


def test_kernels_of_a_convolution_are_not_experts():
    assert shapes(nn.Sequential(nn.Conv1d(3, 4, 2))) == {}


def test_tied_weights_have_one_identity():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    identities = [matrix.identity for _, matrix in matrices(nn.Sequential(first, second))]
    assert identities[0] == identities[1]
