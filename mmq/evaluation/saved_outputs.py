"""Outputs of a trial, saved on disk until it is scored: generating them takes most of the time.

If scoring fails or is interrupted, the evaluation is scored later without generating again.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from mmq.allocation.allocation import BitAllocation
from mmq.eval_spec import EvalSpec
from mmq.system.atomic import atomic_write
from mmq.system.hashing import digest
from mmq.system.home import home

log = logging.getLogger(__name__)


class SavedOutputs:
    """The outputs of one allocation under one EvalSpec, by sample id."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, spec: EvalSpec, allocation: BitAllocation) -> "SavedOutputs":
        """The outputs of a trial, in whichever study."""
        return cls(home() / "outputs" / f"{spec.key}-{digest(str(allocation))}.json")

    def get(self, samples: Sequence[Any]) -> list[str] | None:
        """The outputs for these samples; None if any is missing."""
        outputs = self._read()
        if not samples or any(sample.id not in outputs for sample in samples):
            return None
        return [outputs[sample.id] for sample in samples]

    def missing(self, samples: Sequence[Any]) -> list[Any]:
        """The samples whose outputs are not saved."""
        outputs = self._read()
        return [sample for sample in samples if sample.id not in outputs]

    def add(self, samples: Sequence[Any], outputs: Sequence[str]) -> None:
        """Add outputs to those already saved."""
        ids = [sample.id for sample in samples]
        merged = self._read() | dict(zip(ids, outputs, strict=True))
        with atomic_write(self.path) as temporary:
            temporary.write_text(json.dumps({"sha256": _checksum(merged), "outputs": merged}))

    def remove(self) -> None:
        """Delete them: the trial is scored."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> dict[str, str]:
        try:
            facts = json.loads(self.path.read_bytes())
            outputs: dict[str, str] = facts["outputs"]
            if facts["sha256"] != _checksum(outputs):
                raise ValueError("its checksum does not match")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            log.warning("%s cannot be used (%s): generating again", self.path, error)
            return {}
        return outputs


def _checksum(outputs: Mapping[str, str]) -> str:
    return sha256(json.dumps(outputs, sort_keys=True).encode()).hexdigest()
