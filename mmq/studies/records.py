"""What trials found, on disk: a file a trial, written whole before anything else is told.

A trial that was stopped has a file of another name: whoever wants its record gets none.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmq.allocation.allocation import BitAllocation
from mmq.eval_spec import EvalSpec
from mmq.record import TrialRecord
from mmq.system import sealed
from mmq.system.hashing import digest
from mmq.system.home import home

LONGEST = 120  # characters of an allocation in a file's name


def primary_samples(facts: Mapping[str, Any]) -> Sequence[float] | None:
    """A record's score of every sample, where its metric has one."""
    found: Sequence[float] | None = facts["per_sample"].get(facts["primary"])
    return found


class Records:
    """A folder with the records of trials that differ in their allocation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @classmethod
    def of(cls, question: EvalSpec) -> "Records":
        """Those of a question, whatever study asked it."""
        return cls(home() / "records" / question.key)

    def path(self, allocation: BitAllocation | str) -> Path:
        """Where a trial's record is kept."""
        name = str(allocation).replace(" ", "_")
        if len(name) > LONGEST:
            name = f"{name[:LONGEST]}-{digest(name)}"
        return self.folder / f"{name}.json"

    def path_of_pruned(self, allocation: BitAllocation | str) -> Path:
        """Where the record of a stopped trial is kept."""
        return self.path(allocation).with_suffix(".pruned")

    def keep(self, record: TrialRecord, run_id: str) -> dict[str, Any]:
        """Write a record with its MLflow run; from here on the trial cannot be lost."""
        return self.put(record.to_json() | {"run_id": run_id})

    def put(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Write a record that is plain data already."""
        place = self.path_of_pruned if "pruned" in facts else self.path
        path = place(BitAllocation.of(facts["allocation"]))
        sealed.write_json(path, facts)
        return facts

    def get(self, allocation: BitAllocation | str) -> dict[str, Any] | None:
        """A trial's record; None where it was never evaluated on all samples."""
        return sealed.read_json(self.path(allocation))

    def get_pruned(self, allocation: BitAllocation | str) -> dict[str, Any] | None:
        """The record of a stopped trial; None where it was never stopped."""
        return sealed.read_json(self.path_of_pruned(allocation))

    def get_any(self, allocation: BitAllocation | str) -> dict[str, Any] | None:
        """A trial's record, evaluated on all samples or stopped."""
        return self.get(allocation) or self.get_pruned(allocation)
