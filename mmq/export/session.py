"""From a prepared question to an exported folder: quantize what is missing, write, prove."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmq.allocation.allocation import BitAllocation
from mmq.artifacts.artifacts import Artifacts
from mmq.artifacts.store import Store
from mmq.contracts.metric import Metric
from mmq.contracts.target import ExportReport, Target
from mmq.contracts.vlm import VisionLanguageModel
from mmq.errors import InputError
from mmq.export.layers import ModelLayers, outline_model
from mmq.export.plan import ExportPlan, plan_export
from mmq.export.run import Written, export_model
from mmq.export.verify import Proof, first_samples, prove_bytes, prove_outputs, prove_weights
from mmq.models.loading import locate
from mmq.models.transformers_loading import downloaded
from mmq.prepare import Prepared
from mmq.system.memory import trim

log = logging.getLogger(__name__)


@dataclass(slots=True)
class ExportSession:
    """A checked export, and everything to run it with."""

    prepared: Prepared
    plan: ExportPlan
    artifacts: Artifacts
    quiet: bool = False

    @classmethod
    def of(
        cls, prepared: Prepared, allocation: BitAllocation, target_name: str, target: Target
    ) -> "ExportSession":
        """Check an export of a prepared question's allocation; InputError if it cannot be."""
        eval_spec, skeleton = prepared.eval_spec, prepared.skeleton
        plan = plan_export(
            target_name,
            target,
            allocation.over(skeleton.components),
            prepared.quantizer,
            skeleton,
            source_folder(eval_spec.model),
            eval_spec,
        )
        return cls(prepared, plan, prepared.artifacts(Store.open()))

    def run(
        self, out: Path, verify_samples: int, scores: Mapping[str, Metric] | None = None
    ) -> tuple[ExportReport, Proof | None]:
        """Write the folder. verify_samples: that the engine is asked about; 0 verifies nothing."""
        layers = self.layers()

        def prove(written: Written) -> Proof:
            return self._prove(layers, written, verify_samples)

        check = prove if verify_samples else None
        try:
            return export_model(self.plan, layers, out, check, scores, self.quiet)
        finally:
            self.prepared.task.close()

    def layers(self) -> ModelLayers:
        """The quantized layers, which are computed now where the store lacks some."""
        eval_spec, plan = self.prepared.eval_spec, self.plan
        outline = outline_model(
            self.prepared.skeleton, eval_spec.model, eval_spec.model_fingerprint
        )
        layers = ModelLayers.of(self.artifacts, plan.checkpoint, outline, plan.allocation)
        if not layers.complete:
            log.info("Some blocks are not quantized yet: the model is loaded")
            with self._simulated():
                pass
        return layers

    @contextmanager
    def _simulated(self) -> Iterator[VisionLanguageModel]:
        """The simulated model; it is not in memory afterwards."""
        model = self.prepared.load()
        self.artifacts.write_(model, self.plan.allocation)
        try:
            yield model
        finally:
            del model
            trim()

    def _prove(self, layers: ModelLayers, written: Written, samples: int) -> Proof:
        plan, folder, report = self.plan, written.folder, written.report
        weights = prove_weights(plan, layers, folder, report, self.quiet)
        weighed = prove_bytes(plan, folder, written.specs)
        if weights.failure:  # outputs of other weights prove nothing
            return Proof(weights, weighed, None)
        self.prepared.task.open()
        task = first_samples(self.prepared.task, samples)
        device = self.prepared.device
        outputs = prove_outputs(plan, folder, device, task, self._simulated, self.quiet)
        return Proof(weights, weighed, outputs)


def source_folder(model: str) -> Path:
    """The folder of a model's files; InputError for a hub model that is not here."""
    folder = downloaded(locate(model))
    if folder is None:
        raise InputError(
            f"model: {model} is not on this machine; download it (hf download {model}), or run "
            f"`mmq quantize --model {model}` first"
        )
    return folder
