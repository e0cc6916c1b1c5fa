"""The dtype that a checkpoint's configuration asks for."""

from types import SimpleNamespace

import pytest
import torch

from mmq.errors import InputError
from mmq.system.device import check_dtype, resolve_dtype


@pytest.mark.parametrize(
    ("stored", "cpu", "gpu"),
    [
        (torch.bfloat16, "bfloat16", "bfloat16"),
        ("float16", "float32", "float16"),
        (torch.float32, "float32", "float32"),
        (None, "float32", "float16"),
        ("float8_e4m3fn", "float32", "float16"),
    ],
)
def test_auto_follows_the_checkpoint(stored, cpu, gpu):
    for config in (
        SimpleNamespace(dtype=stored),
        SimpleNamespace(torch_dtype=stored),
        SimpleNamespace(dtype=None, text_config=SimpleNamespace(dtype=stored)),
    ):
        assert resolve_dtype("auto", "cpu", config) == cpu
        assert resolve_dtype("auto", "cuda:1", config) == gpu


def test_an_explicit_dtype_overrides_the_default():
    assert resolve_dtype("float16", "cpu", SimpleNamespace(dtype=torch.bfloat16)) == "float16"
    with pytest.raises(InputError, match="dtype: 'int8' is not one of"):
        check_dtype("int8")
