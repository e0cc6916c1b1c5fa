"""What a study evaluates: the model, the task, the data and the quantizer, all but the bits."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmq.system.hashing import digest

PROVENANCE = {  # logged, and no part of the key
    "model", "data", "limit", "calibrated", "allow_unread_weights",
    "quantizer_origin", "evaluator_origin", "family_origin",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class EvalSpec:
    """What a study evaluates. Its trials differ in the allocation alone.

    Plugins are identified by name, distribution and version (`Quantizer.version` and so on), mmq's
    own computations by the version of their room. Origins (the distribution's version and a hash
    of the source that ran) are logged and decide nothing.
    """

    model: str
    model_fingerprint: str
    dtype: str
    family: str
    family_distribution: str
    family_version: int
    family_origin: str
    task: str
    data: str
    data_fingerprint: str
    samples: int
    quantizer: str
    quantizer_distribution: str
    quantizer_version: int
    quantizer_origin: str
    quantizer_options: Mapping[str, Any]
    evaluator: str
    evaluator_distribution: str
    evaluator_version: int
    evaluator_origin: str
    evaluator_options: Mapping[str, Any]
    environment: str  # packages whose version can change a score
    versions: Mapping[str, int]  # of mmq's rooms whose code can change a score
    seed: int
    rendered_prompt: str = ""  # the first sample's, as the model reads it; "" where it ranks
    tokenization: Mapping[str, Any] = field(default_factory=dict)  # of the prompts
    calibrated: bool = False  # whether the quantizer looks at the calibration pairs
    calibration: str = ""  # their fingerprint; "" if there are none
    calibration_samples: int = 0
    limit: str = "0"  # how the samples were drawn
    allow_unread_weights: bool = False  # the fingerprint covers what is not read

    def identity(self) -> dict[str, Any]:
        """Everything that the scores depend on; two specs with the same identity are one.

        The names of model and data do not count (their fingerprints do), nor how the samples were
        drawn (the data's fingerprint tells which they are), nor calibration pairs that the
        quantizer does not look at.
        """
        left_out = set(PROVENANCE)
        if not self.calibrated:
            left_out |= {"calibration", "calibration_samples"}
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in left_out}

    @property
    def key(self) -> str:
        """A hash of the identity."""
        return digest(self.identity())
