"""What a study evaluates: model, task, data and quantizer; everything but the bits."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmq.system.hashing import digest

PROVENANCE = {  # logged, but not part of the key
    "generation_config", "model", "data", "limit", "calibrated", "allow_unread_weights",
    "quantizer_origin", "evaluator_origin", "family_origin",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class EvalSpec:
    """What a study evaluates; its trials differ only in the allocation.

    Plugins are identified by name, distribution and version (`Quantizer.version` and so on), mmq's
    own computations by the version of their room. Origins (the distribution's version and a hash
    of the source) are only logged.
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
    environment: str  # versions of packages that can change a score
    versions: Mapping[str, int]  # of mmq's rooms that can change a score
    seed: int
    rendered_prompt: str = (
        ""  # the first sample's, as the model reads it; "" if the evaluator ranks
    )
    tokenization: Mapping[str, Any] = field(default_factory=dict)  # of prompts and pictures
    # the checkpoint's own decoding settings that apply; its fingerprint covers them
    generation_config: Mapping[str, Any] = field(default_factory=dict)
    calibrated: bool = False  # whether the quantizer uses the calibration pairs
    calibration: str = ""  # their fingerprint; "" if there are none
    calibration_samples: int = 0
    limit: str = "0"  # how the samples were selected
    allow_unread_weights: bool = False  # the fingerprint covers unread weights, too

    def identity(self) -> dict[str, Any]:
        """Everything that the scores depend on; specs with equal identities are the same.

        Excludes the names of model and data (their fingerprints count), how the samples were
        selected (the data's fingerprint covers them), and calibration pairs that the quantizer
        does not use.
        """
        excluded = set(PROVENANCE)
        if not self.calibrated:
            excluded |= {"calibration", "calibration_samples"}
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in excluded}

    @property
    def subject(self) -> str:
        """Model, task, data and quantizer in words, for titles."""
        model = self.model.rstrip("/").split("/")[-1]
        return (
            f"{model}, {self.evaluator} on {self.data.rstrip('/').split('/')[-1]} "
            f"({self.samples} samples), {self.quantizer}"
        )

    @property
    def key(self) -> str:
        """A hash of the identity."""
        return digest(self.identity())
