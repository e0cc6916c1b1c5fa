"""Weights on disk: one expert is read and written alone, and the checkpoint stays as it is."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mmq.tensors.matrices import Matrix
from mmq.tensors.offloaded import share_

hooks = pytest.importorskip("accelerate.hooks", reason="needs mmq[device-map]")
EXPERTS, ROWS, COLUMNS = 3, 4, 6


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Parameter(torch.empty(EXPERTS, ROWS, COLUMNS).bfloat16())

    def forward(self, x):
        return x @ self.up[1].T


def on_disk(folder, names=("up",)):
    """One module per name, whose values are in a checkpoint under the first name alone."""
    from accelerate.utils import OffloadedWeightsLoader, PrefixedDataset

    torch.manual_seed(0)
    values = torch.randn(EXPERTS, ROWS, COLUMNS).bfloat16()
    save_file({"first.up": values}, folder / "model.safetensors")
    entry = {"safetensors_file": str(folder / "model.safetensors"), "weight_name": "first.up",
             "dtype": "bfloat16"}  # fmt: skip
    loader = OffloadedWeightsLoader(save_folder=str(folder), index={"first.up": entry})
    modules = []
    for name in names:
        hook = hooks.AlignDevicesHook(
            "cpu", offload=True, weights_map=PrefixedDataset(loader, f"{name}.")
        )
        modules.append(hooks.add_hook_to_module(Experts(), hook))
    return modules, values


def test_one_expert_is_replaced_and_the_forward_reads_it(tmp_path):
    (module,), values = on_disk(tmp_path, ["first"])
    assert module.up.is_meta
    second, third = Matrix(module, "up", 1), Matrix(module, "up", 2, transposed=True)
    assert torch.equal(second.weight, values[1])
    assert torch.equal(third.weight, values[2].T)
    new = torch.full((ROWS, COLUMNS), 0.5)
    second.copy_(new)
    third.copy_(2 * new.T)
    assert torch.equal(second.weight, new.bfloat16())
    assert torch.equal(third.weight, 2 * new.T.bfloat16())
    assert torch.equal(Matrix(module, "up", 0).weight, values[0])
    x = torch.ones(1, COLUMNS, dtype=torch.bfloat16)
    assert torch.equal(module(x), x @ new.bfloat16().T)
    assert torch.equal(load_file(tmp_path / "model.safetensors")["first.up"], values)


def test_a_twin_that_the_index_lacks_finds_its_weights_and_changes_too(tmp_path):
    (first, second), values = on_disk(tmp_path, ["first", "second"])
    share_([(first, "up"), (second, "up")])
    x = torch.ones(1, COLUMNS, dtype=torch.bfloat16)
    assert torch.equal(second(x), x @ values[1].T)
    new = torch.full((ROWS, COLUMNS), 0.25)
    Matrix(first, "up", 1, twins=((second, "up"),)).copy_(new)
    assert torch.equal(first(x), second(x))
    assert torch.equal(Matrix(second, "up", 1).weight, new.bfloat16())
