"""Export an allocation: quantize missing blocks, write the folder, verify it."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmq.allocation.allocation import BitAllocation
from mmq.artifacts.artifacts import Artifacts
from mmq.artifacts.store import Store
from mmq.artifacts.streaming import fill_from_files, holds
from mmq.contracts.metric import Metric
from mmq.contracts.quantizer import CalibratedQuantizer
from mmq.contracts.target import ExportReport, Target
from mmq.contracts.vlm import VisionLanguageModel
from mmq.export.layers import ModelLayers, outline_model
from mmq.export.plan import ExportPlan, plan_export
from mmq.export.run import Written, export_model
from mmq.export.side_files import source_folder
from mmq.export.verify import Proof, first_samples, prove_bytes, prove_outputs, prove_weights
from mmq.prepare import Prepared
from mmq.system.device import DTYPES
from mmq.system.memory import trim

log = logging.getLogger(__name__)


@dataclass(slots=True)
class ExportSession:
    """A checked export, ready to run."""

    prepared: Prepared
    plan: ExportPlan
    artifacts: Artifacts
    quiet: bool = False

    @classmethod
    def of(
        cls, prepared: Prepared, allocation: BitAllocation, target_name: str, target: Target
    ) -> "ExportSession":
        """Check an export of an allocation; InputError if the target cannot hold it."""
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
        self,
        out: Path,
        verify_samples: int,
        scores: Mapping[str, Metric] | None = None,
        trial: str = "",
    ) -> tuple[ExportReport, Proof | None]:
        """Write the folder. verify_samples: number that the engine answers; 0 verifies nothing.

        scores, trial: of the trial that is exported, and the id of its run.
        """
        layers = self.layers()

        def prove(written: Written) -> Proof:
            return self._prove(layers, written, verify_samples)

        check = prove if verify_samples else None
        try:
            return export_model(self.plan, layers, out, check, scores, self.quiet, trial)
        finally:
            self.prepared.close()

    def layers(self) -> ModelLayers:
        """The quantized layers; blocks that the store lacks are computed.

        The plan's bytes are exact from then on. InputError for a layer that, as it was quantized,
        the target cannot store.
        """
        layers = self._complete_layers()
        self.plan = self.plan.as_quantized(layers.specs(self.plan.target.folds, self.quiet))
        return layers

    def _complete_layers(self) -> ModelLayers:
        eval_spec, plan = self.prepared.eval_spec, self.plan
        outline = outline_model(
            self.prepared.skeleton, eval_spec.model, eval_spec.model_fingerprint
        )
        layers = ModelLayers.of(self.artifacts, plan.checkpoint, outline, plan.allocation)
        if layers.complete:
            return layers
        if self._streams(layers):
            dtype = DTYPES[eval_spec.dtype]
            fill_from_files(
                self.artifacts, layers.artifact_keys, lambda name: layers.source(name).to(dtype)
            )
            return layers
        log.info("Loading the model: some blocks are not quantized yet")
        with self._simulated():
            pass
        return layers

    def _streams(self, layers: ModelLayers) -> bool:
        """Whether missing blocks can be quantized from the files, without loading the model.

        Calibration needs the model. So do tables, which have a quantizer of their own, and weights
        that are rounded while they are loaded: transformers leaves some of them in float32.
        """
        if isinstance(self.prepared.quantizer, CalibratedQuantizer):
            return False
        if any(component.per_row for component in self.prepared.skeleton.components.values()):
            return False
        dtype = DTYPES[self.prepared.eval_spec.dtype]
        return all(
            stored is not None and holds(dtype, stored) for stored in layers.source_dtypes()
        )

    @contextmanager
    def _simulated(self) -> Iterator[VisionLanguageModel]:
        """The simulated model, removed from memory at the end."""
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
        size_proof = prove_bytes(plan, folder)
        reason = "the weights differ" if weights.failure else plan.target.unavailable()
        if reason:
            return Proof(weights, size_proof, None, reason)
        self.prepared.open()
        tasks = {
            label: first_samples(task, samples)
            for label, task in self.prepared.scored_tasks.items()
        }
        device = self.prepared.device
        first, *further = prove_outputs(plan, folder, device, tasks, self._simulated, self.quiet)
        return Proof(weights, size_proof, first, further=tuple(further))
