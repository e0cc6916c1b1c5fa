"""The unquantized model's outputs in a study, shown with the predictions of its trials."""

import logging
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient

from mmq.allocation.allocation import UNQUANTIZED, BitAllocation
from mmq.record import TrialSpec
from mmq.tracking import files
from mmq.tracking.offline import STORE_ERRORS, short_timeouts
from mmq.tracking.queries import trial_filter

log = logging.getLogger(__name__)


class UnquantizedOutputs:
    """Outputs by sample of a study's unquantized trials, read once per eval spec."""

    def __init__(self, client: MlflowClient, experiment_id: str, study: str) -> None:
        self.client, self.experiment_id, self.study = client, experiment_id, study
        self._outputs: dict[str, Mapping[str, str]] = {}

    def of(self, spec: TrialSpec) -> Mapping[str, str]:
        """Outputs of a trial's eval spec; empty if the trial is not logged, or cannot be read."""
        key = spec.eval_spec.key
        if key not in self._outputs and (run_id := self._find(spec)) is not None:
            self._outputs[key] = files.NOTHING  # if it cannot be read, it is not tried again
            self._read(key, run_id)
        return self._outputs.get(key, files.NOTHING)

    def _find(self, spec: TrialSpec) -> str | None:
        """The run that evaluated the unquantized model, also if it belongs to another study."""
        allocation = BitAllocation.uniform(spec.allocation.components, UNQUANTIZED)
        query = (
            f"{trial_filter(self.study)} and attributes.status = 'FINISHED'"
            f" and tags.`mmq.eval_spec` = '{spec.eval_spec.key}'"
            f" and tags.`mmq.allocation` = '{allocation}'"
        )
        runs = self.client.search_runs([self.experiment_id], query, max_results=1)
        if not runs:
            return None
        return str(runs[0].data.tags.get("mmq.recorded_by", runs[0].info.run_id))

    def _read(self, key: str, run_id: str) -> None:
        try:
            with short_timeouts(), TemporaryDirectory() as folder:
                path = self.client.download_artifacts(run_id, files.ALL_PREDICTIONS, folder)
                self._outputs[key] = files.read_outputs(Path(path))
        except (*STORE_ERRORS, OSError) as error:  # an artifact store may delete files by age
            log.info("Predictions are logged without the unquantized model's: %s", error)
