"""The spec of a study's evaluations: model, tasks, data and quantizer; all but the bits."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmq.system.hashing import digest
from mmq.task_names import join_by_task, join_fields, last_part, short_names

PROVENANCE = {  # logged, but not part of the key
    "generation_config", "model", "data", "dataset", "fields", "calibration_data", "limit",
    "calibrated", "allow_unread_weights",
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
    versions: Mapping[str, int]  # of mmq's packages that can change a score
    seed: int
    rendered_prompt: str = (
        ""  # the first sample's, as the model reads it; "" if the evaluator ranks
    )
    # settings that turn prompts and pictures into inputs
    tokenization: Mapping[str, Any] = field(default_factory=dict)
    # the checkpoint's own decoding settings that apply; its fingerprint covers them
    generation_config: Mapping[str, Any] = field(default_factory=dict)
    calibrated: bool = False  # whether the quantizer uses the calibration pairs
    calibration: str = ""  # their fingerprint; "" if there are none
    calibration_samples: int = 0
    limit: str = "0"  # how the samples were selected
    allow_unread_weights: bool = False  # the fingerprint covers unread weights, too
    # --dataset, --fields and --calibration-data; the fingerprints cover what they select
    dataset: str = ""
    fields: str = ""
    calibration_data: str = ""

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
    def setting(self) -> str:
        """Model, task and data in words, for titles of figures that compare quantizers."""
        model, data = last_part(self.model), short_names(self.data)
        return f"{model}, {self.evaluator} on {data} ({self.samples} samples)"

    @property
    def served(self) -> "EvalSpec":
        """The spec whose prompt and decoding an exported model is served with."""
        return self

    @property
    def subject(self) -> str:
        """Model, task, data and quantizer in words, for titles."""
        return f"{self.setting}, {self.quantizer}"

    @property
    def key(self) -> str:
        """A hash of the identity."""
        return digest(self.identity())


@dataclass(frozen=True, slots=True)
class JointSpec(EvalSpec):
    """The spec of a study of several tasks: one eval spec per task, by label.

    The inherited fields describe all of them, such as "vqa,captioning" as the task. combine: how
    the tasks' shares of the unquantized score become one score, `worst` or `mean`.
    """

    tasks: Mapping[str, EvalSpec] = field(default_factory=dict)
    combine: str = "worst"

    @classmethod
    def of(cls, tasks: Mapping[str, EvalSpec], combine: str) -> "JointSpec":
        """The joint spec of tasks on one model with one quantizer."""
        specs = list(tasks.values())
        first = {f.name: getattr(specs[0], f.name) for f in dataclasses.fields(EvalSpec)}
        joined = {
            name: ",".join(getattr(spec, name) for spec in specs)
            for name in ("task", "evaluator", "evaluator_origin")
        }
        for name in ("data", "dataset", "calibration_data", "limit"):
            joined[name] = join_by_task({k: getattr(spec, name) for k, spec in tasks.items()})
        joined["fields"] = join_fields({k: spec.fields for k, spec in tasks.items()})
        merged = {
            "data_fingerprint": digest([spec.data_fingerprint for spec in specs]),
            "samples": sum(spec.samples for spec in specs),
            "evaluator_version": max(spec.evaluator_version for spec in specs),
            "evaluator_options": {
                f"{label}.{name}": value
                for label, spec in tasks.items()
                for name, value in spec.evaluator_options.items()
            },
        }
        return cls(**(first | joined | merged), tasks=dict(tasks), combine=combine)

    @property
    def served(self) -> EvalSpec:
        """The first task that generates text; the first one if none does."""
        specs = list(self.tasks.values())
        return next((spec for spec in specs if spec.rendered_prompt), specs[0])

    def identity(self) -> dict[str, Any]:
        """The identities of the tasks, and how their scores are combined."""
        tasks = {label: spec.identity() for label, spec in self.tasks.items()}
        return {"combine": self.combine, "tasks": tasks}


def spec_from_json(data: Mapping[str, Any]) -> EvalSpec:
    """The eval spec that `dataclasses.asdict` turned into plain data."""
    if "tasks" not in data:
        return EvalSpec(**data)
    tasks = {label: EvalSpec(**spec) for label, spec in data["tasks"].items()}
    return JointSpec(**{**data, "tasks": tasks})
