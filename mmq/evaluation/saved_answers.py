"""What a model said in a trial, on disk until the trial is scored: generating is what costs.

An evaluation whose scoring fails or is interrupted is scored again without asking the model.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from mmq.allocation.allocation import BitAllocation
from mmq.eval_spec import EvalSpec
from mmq.system.atomic import whole
from mmq.system.hashing import digest
from mmq.system.home import home

log = logging.getLogger(__name__)


class SavedAnswers:
    """The answers of one allocation to one eval spec, by sample id."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, eval_spec: EvalSpec, allocation: BitAllocation) -> "SavedAnswers":
        """Those of a trial, whatever study it belongs to."""
        return cls(home() / "answers" / f"{eval_spec.key}-{digest(str(allocation))}.json")

    def get(self, samples: Sequence[Any]) -> list[str] | None:
        """The answers to these samples; None where one of them is not there."""
        answers = self._read()
        if not samples or any(sample.id not in answers for sample in samples):
            return None
        return [answers[sample.id] for sample in samples]

    def add(self, samples: Sequence[Any], answers: Sequence[str]) -> None:
        """Save answers beside those that are there."""
        ids = [sample.id for sample in samples]
        together = self._read() | dict(zip(ids, answers, strict=True))
        with whole(self.path) as aside:
            aside.write_text(json.dumps({"sha256": _checksum(together), "answers": together}))

    def remove(self) -> None:
        """Forget them: the trial is scored."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> dict[str, str]:
        try:
            facts = json.loads(self.path.read_bytes())
            answers: dict[str, str] = facts["answers"]
            if facts["sha256"] != _checksum(answers):
                raise ValueError("its checksum is another one")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            log.warning("%s cannot be used (%s): the model is asked again", self.path, error)
            return {}
        return answers


def _checksum(answers: Mapping[str, str]) -> str:
    return sha256(json.dumps(answers, sort_keys=True).encode()).hexdigest()
