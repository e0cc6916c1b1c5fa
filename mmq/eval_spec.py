"""What a study asks, as plain facts."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmq.system.hashing import digest


@dataclass(frozen=True, slots=True)
class EvalSpec:
    """What a study asks: model, task, data and quantizer. Its trials differ in the allocation."""

    model: str
    model_fingerprint: str
    dtype: str
    task: str
    data: str
    data_fingerprint: str
    samples: int
    quantizer: str
    quantizer_origin: str  # distribution, versions and a hash of the code
    quantizer_options: Mapping[str, Any]
    evaluator: str
    evaluator_origin: str
    evaluator_options: Mapping[str, Any]
    environment: str  # packages whose version can change a score
    seed: int
    rendered_prompt: str = ""  # the first sample's, as the model reads it; "" where it ranks
    tokenization: Mapping[str, Any] = field(default_factory=dict)  # of the prompts
    calibrated: bool = False  # whether the quantizer looks at the calibration pairs
    calibration: str = ""  # their fingerprint; "" where there are none
    calibration_samples: int = 0
    limit: str = "0"  # how the samples were drawn
    allow_unread_weights: bool = False  # the fingerprint covers what is not read

    def facts(self) -> dict[str, Any]:
        """All that the scores depend on; the model's and data's names do not count.

        How samples were drawn neither: the data's fingerprint knows which they are.

        Nor do calibration pairs that nothing looks at.
        """
        left_out = {"model", "data", "limit", "calibrated", "allow_unread_weights"}
        if not self.calibrated:
            left_out |= {"calibration", "calibration_samples"}
        everything = dataclasses.asdict(self)
        return {k: v for k, v in everything.items() if k not in left_out}

    @property
    def key(self) -> str:
        """A hash of the facts."""
        return digest(self.facts())
