"""Outputs of a trial, saved on disk until it is scored: generating them takes most of the time.

If scoring fails or is interrupted, the evaluation is scored later without generating again.
"""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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
        outputs = self._read().outputs
        if not samples or any(sample.id not in outputs for sample in samples):
            return None
        return [outputs[sample.id] for sample in samples]

    def missing(self, samples: Sequence[Any]) -> list[Any]:
        """The samples whose outputs are not saved."""
        outputs = self._read().outputs
        return [sample for sample in samples if sample.id not in outputs]

    def counts(self, samples: Sequence[Any]) -> Counter[str]:
        """Counts from generating these outputs, such as broken logits."""
        ids = {sample.id for sample in samples}
        total: Counter[str] = Counter()
        for first, counts in self._read().counts.items():
            total.update(counts if first in ids else {})
        return total

    def add(
        self,
        samples: Sequence[Any],
        outputs: Sequence[str],
        counts: Mapping[str, int] | None = None,
    ) -> None:
        """Add outputs to those already saved. counts: from generating them."""
        before, ids = self._read(), [sample.id for sample in samples]
        merged = _Saved(
            before.outputs | dict(zip(ids, outputs, strict=True)),
            before.counts | ({ids[0]: dict(counts)} if counts else {}),
        )
        with atomic_write(self.path) as temporary:
            temporary.write_text(json.dumps({"sha256": merged.checksum, **asdict(merged)}))

    def remove(self) -> None:
        """Delete them: the trial is scored."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> "_Saved":
        try:
            facts = json.loads(self.path.read_bytes())
            saved = _Saved(facts["outputs"], facts["counts"])
            if facts["sha256"] != saved.checksum:
                raise ValueError("its checksum does not match")
        except FileNotFoundError:
            return _Saved({}, {})
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            log.warning("%s cannot be used (%s): generating again", self.path, error)
            return _Saved({}, {})
        return saved


@dataclass(frozen=True, slots=True)
class _Saved:
    """A file's content. counts: by the first sample of those that were generated together."""

    outputs: dict[str, str]
    counts: dict[str, dict[str, int]]

    @property
    def checksum(self) -> str:
        """A hash of all outputs and counts."""
        return sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
