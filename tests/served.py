"""A study with an exported selection, for tests of measuring and serving it."""

import base64
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from mmq.cli import main
from mmq.export.pictures import sample_picture

ALIAS = "models:/mine@smallest-within-1-percent"
QUESTION = "what color is the circle?"
SEARCH = ["search", "--model", "embedded-llava", "--bits", "8,16", "--limit", "6", "--num-beams"]
SEARCH += ["1", "--n-trials", "2", "--group-size", "64", "--symmetric", "true", "--study", "mine"]


def picture():
    """A picture in base64."""
    return base64.b64encode(sample_picture(32).data).decode()


@dataclass(frozen=True)
class Exported:
    """Where a selection was exported to, and the store that it is registered in."""

    uri: str
    folder: Path

    @contextmanager
    def in_use(self):
        """The store as that of this process."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder.parent)
            patch.setenv("MLFLOW_TRACKING_URI", self.uri)
            mlflow.set_tracking_uri(self.uri)
            yield self
            mlflow.set_tracking_uri(None)

    @property
    def client(self):
        return MlflowClient(self.uri)

    @property
    def experiment(self):
        return self.client.get_experiment_by_name("mmq").experiment_id

    def runs(self, kind):
        return self.client.search_runs([self.experiment], f"tags.`mmq.kind` = '{kind}'")


def export_answer(folder: Path, empty_store: Path) -> Exported:
    """Search with the embedded LLaVA in a store of its own, and export what was selected."""
    shutil.copy(empty_store, folder / "mlflow.db")
    exported = Exported(f"sqlite:///{folder}/mlflow.db", folder / "mine")
    with exported.in_use():
        main(SEARCH)
        out = str(exported.folder)
        main(["export", "--run", ALIAS, "--target", "gguf", "--out", out, "--verify-samples", "2"])
    return exported
