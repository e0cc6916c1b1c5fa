"""Rules of thumb that are slightly larger than a search's bound, evaluated for comparison."""

from collections.abc import Callable, Sequence

from mmq.allocation.allocation import BitAllocation
from mmq.analysis.budgets import Budget

NEARBY = 0.1  # by how much a rule may exceed the bound


def rules_above(
    rules: Sequence[tuple[str, BitAllocation]],
    budget: Budget,
    fits: Callable[[BitAllocation, Budget], bool],
) -> frozenset[str]:
    """The rules that exceed the bound on the size by up to 10%, and the next uniform width.

    rules: their names and allocations, uniform widths from the widest on. fits: whether an
    allocation is within a budget.
    """
    if not budget.sized:
        return frozenset()
    wider = budget.stretched(NEARBY)
    above = [(name, allocation) for name, allocation in rules if not fits(allocation, budget)]
    near = [str(allocation) for _, allocation in above if fits(allocation, wider)]
    uniform = [str(allocation) for name, allocation in above if name.startswith("uniform")]
    return frozenset([*near, *uniform[-1:]])
