"""The needs of a search, before it starts: trials, samples, memory and disk."""

from mmq.allocation.allocation import UNQUANTIZED
from mmq.analysis.budgets import Budget
from mmq.prepare import Prepared
from mmq.system.device import DTYPES
from mmq.system.disk import GIB
from mmq.system.wording import counted
from mmq_search.sampler_setup import SamplerSetup


def plan_text(setup: SamplerSetup, prepared: Prepared, n_trials: int) -> str:
    """A few lines; the first trial shows how long the others take. Bounds are repeated in words.

    Memory is that of the weights alone, and disk that of the quantized blocks at all widths.
    """
    spec, space = prepared.eval_spec, setup.space
    trials = min(n_trials, len(space))
    memory = setup.parameters * DTYPES[spec.dtype].itemsize / GIB
    stored = setup.stored or {}
    disk = sum(bits for (_, width), bits in stored.items() if width != UNQUANTIZED) / 8 / GIB
    return (
        f"Plan: {counted(trials, 'trial')} of up to {counted(spec.samples, 'sample')}; the first "
        f"shows how long each takes\n"
        f"  from {space.describe()}\n"
        f"{_bounds(setup.budget)}"
        f"  on {prepared.device}, with {memory:.3g} GiB of memory for the weights and {disk:.3g} "
        f"GiB of disk for quantized blocks"
    )


def _bounds(budget: Budget) -> str:
    """The line of the bounds, which shows a forgotten percent sign; "" without bounds."""
    texts = [f"at most {budget.size_text}"] if budget.sized else []
    texts += [f"a model {budget.score_text}"] if budget.scored else []
    texts += [budget.flips_text.strip()] if budget.max_flips is not None else []
    return f"  for {', '.join(texts)}\n" if texts else ""
