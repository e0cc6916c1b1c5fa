"""Whether the unquantized model scores anything that quantized ones can be compared with."""

import math
from collections.abc import Mapping
from typing import Any

from mmq.errors import InputError

ADVICE = (
    "Check what the model says to the samples (all_predictions.json of its run, or mmq "
    "evaluate-baseline), the prompt (--prompt), the data (--data, --dataset), the model (--model) "
    "and the metric (--task). Quantized models are not evaluated."
)


def check_baseline(
    score: Mapping[str, Any], name: str, bounds: tuple[float, float] | None
) -> None:
    """InputError where no loss could be seen: the unquantized score is the least there is.

    score: value, low, high and n of the metric with this name. bounds: between which values it
    lies; where they are not known, it only has to be a number.
    """
    value, low, n = score["value"], score.get("low"), score.get("n")
    on = f"{name} of {n} samples" if n else name
    if value is None or not math.isfinite(value):
        raise InputError(f"The unquantized model has no score: {on} is undefined. {ADVICE}")
    if bounds is None:
        return
    floor = bounds[0]
    if value <= floor:
        raise InputError(
            f"The unquantized model scores {value:.4g} ({on}), the least there is: no quantized "
            f"model can be compared with it. {ADVICE}"
        )
    if low is not None and low <= floor:
        interval = f"95% interval {low:.4g} to {score['high']:.4g}"
        raise InputError(
            f"The unquantized model scores {value:.4g} ({on}; {interval}), which cannot be told "
            f"from {floor:g}, the least there is. Score more samples (--limit). {ADVICE}"
        )
