"""The needs of a search, before it starts: trials, samples, memory and disk."""

from mmq.allocation.allocation import UNQUANTIZED
from mmq.prepare import Prepared
from mmq.system.device import DTYPES
from mmq.system.disk import GIB
from mmq_search.sampler_setup import SamplerSetup


def plan_text(setup: SamplerSetup, prepared: Prepared, n_trials: int) -> str:
    """A few lines; the first trial shows how long the others take.

    Memory is that of the weights alone, and disk that of the quantized blocks at all widths.
    """
    spec, space = prepared.eval_spec, setup.space
    trials = min(n_trials, len(space))
    memory = setup.parameters * DTYPES[spec.dtype].itemsize / GIB
    stored = setup.stored or {}
    disk = sum(bits for (_, width), bits in stored.items() if width != UNQUANTIZED) / 8 / GIB
    return (
        f"Plan: {trials} trials of up to {spec.samples} samples; the first shows how long each "
        f"takes\n"
        f"  from {space.describe()}\n"
        f"  on {prepared.device}, with {memory:.3g} GiB of memory for the weights and {disk:.3g} "
        f"GiB of disk for quantized blocks"
    )
