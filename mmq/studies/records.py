"""Records of trials on disk: one file per trial, written before anything else happens.

The record of a pruned trial has another suffix, so that it is never mistaken for a full one.
"""

from pathlib import Path

from mmq.allocation.allocation import BitAllocation
from mmq.eval_spec import EvalSpec
from mmq.record import TrialRecord
from mmq.system import sealed
from mmq.system.hashing import digest
from mmq.system.home import home
from mmq.system.sealed import Unusable

LONGEST = 120  # characters of an allocation in a file's name


class Records:
    """A folder with the records of trials that differ in their allocation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @classmethod
    def of(cls, eval_spec: EvalSpec) -> "Records":
        """The records of an eval spec, from any study."""
        return cls(home() / "records" / eval_spec.key)

    def path(self, allocation: BitAllocation | str) -> Path:
        """Where the record of a trial is, or would be."""
        name = str(allocation).replace(" ", "_")
        if len(name) > LONGEST:
            name = f"{name[:LONGEST]}-{digest(name)}"
        return self.folder / f"{name}.json"

    def path_of_pruned(self, allocation: BitAllocation | str) -> Path:
        """Where the record of a pruned trial is, or would be."""
        return self.path(allocation).with_suffix(".pruned")

    def put(self, record: TrialRecord) -> TrialRecord:
        """Save a record; from then on the trial cannot be lost."""
        place = self.path if record.pruned is None else self.path_of_pruned
        sealed.write_json(place(record.allocation), record.to_json())
        return record

    def get(self, allocation: BitAllocation | str) -> TrialRecord | None:
        """A trial's record; None if it was never evaluated on all samples."""
        return _read(self.path(allocation))

    def get_pruned(self, allocation: BitAllocation | str) -> TrialRecord | None:
        """The record of a pruned trial; None if it was never pruned."""
        return _read(self.path_of_pruned(allocation))

    def get_any(self, allocation: BitAllocation | str) -> TrialRecord | None:
        """A trial's record, evaluated on all samples or pruned."""
        return self.get(allocation) or self.get_pruned(allocation)

    def all(self) -> list[TrialRecord]:
        """Every record of a trial that was evaluated on all samples."""
        records = (_read(path) for path in sorted(self.folder.glob("*.json")))
        return [record for record in records if record is not None]


def _read(path: Path) -> TrialRecord | None:
    """The record in a file; None without one or, with a warning, if it cannot be used."""
    data = sealed.read_json(path)
    if data is None:
        return None
    try:
        return TrialRecord.from_json(data)
    except Unusable as problem:
        sealed.report(path, problem)
        return None
