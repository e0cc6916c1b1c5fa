"""Check that the unquantized model scores above the floor: otherwise no loss can be measured."""

import math

from mmq.contracts import Metric
from mmq.errors import InputError
from mmq.system.wording import counted

ADVICE = (
    "See what it answers: run `mmq evaluate-baseline` with the same options. Check the prompt "
    "(--prompt), the data (--data, --dataset), the model (--model) and the metric (--task). "
    "Quantized models are not evaluated."
)


def check_baseline(score: Metric, name: str, bounds: tuple[float, float] | None) -> None:
    """InputError if the unquantized score is the lowest possible: no loss could be measured.

    name: of the metric. bounds: its range; if unknown, the score only has to be finite.
    """
    value, low = score.value, score.low
    on = f"{name} of {counted(score.n, 'sample')}" if score.n else name
    if not math.isfinite(value):
        raise InputError(f"The unquantized model has no score: {on} is undefined. {ADVICE}")
    if bounds is None:
        return
    floor = bounds[0]
    if value <= floor:
        raise InputError(
            f"The unquantized model scores {value:.4g} ({on}), the lowest possible score: no "
            f"quantized model can be compared with it. {ADVICE}"
        )
    if low is not None and low <= floor:
        interval = f"95% interval {low:.4g} to {score.high:.4g}"
        raise InputError(
            f"The unquantized model scores {value:.4g} ({on}; {interval}), which is not "
            f"significantly above {floor:g}, the lowest possible score. Score more samples "
            f"(--limit). {ADVICE}"
        )
