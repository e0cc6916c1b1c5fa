"""The original solvers that the bundled ones are compared with, if they are installed."""

import pytest
from mmq_plugins.quantizers.legacy import load_solver

from mmq.errors import InputError


def original(module):
    """A solver's module; the test is skipped where its package is not installed."""
    try:
        return load_solver(module)
    except InputError as error:
        if "is not installed" not in str(error):
            raise
        pytest.skip(str(error))


def auto_gptq():
    return original("auto_gptq.quantization.gptq").GPTQ


def autoawq():
    return original("awq.quantize.quantizer").AwqQuantizer
