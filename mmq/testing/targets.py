"""What every export target must satisfy, tried on a small model."""

import functools
from abc import ABC, abstractmethod
from pathlib import Path

import pytest
import torch

from mmq.allocation.allocation import ALLOWED_BITS, BitAllocation
from mmq.config import EvalOptions
from mmq.contracts.target import Target, WeightSpec
from mmq.export.facts import file_sizes, read_facts
from mmq.export.session import ExportSession
from mmq.export.verify import Proof
from mmq.prepare import Prepared, prepare

SAMPLES = 3
SHAPE = (64, 256)


@functools.cache
def _prepared(
    checkpoint: str, bits: str, task: str, options: tuple[tuple[str, str], ...]
) -> Prepared:
    allocation = BitAllocation.parse(bits)
    settings = EvalOptions(model=checkpoint, task=task, limit=str(SAMPLES), quantizer="rtn")
    return prepare(settings, dict(options), lambda parts: [allocation.over(parts)])


class TargetContract(ABC):
    """Subclass it and implement `make`, and `bits` for an allocation that the target accepts.

    checkpoint, task: what is exported and evaluated. options: of the quantizer `rtn`.
    """

    checkpoint = "embedded-llava"
    task = "vqa"
    options: tuple[tuple[str, str], ...] = (("group_size", "64"), ("symmetric", "true"))

    @abstractmethod
    def make(self) -> Target:
        """The target."""

    @abstractmethod
    def bits(self) -> str:
        """An allocation that it accepts, such as "vit=8,llm=4"."""

    def session(self) -> ExportSession:
        """A checked export of the checkpoint."""
        prepared = _prepared(self.checkpoint, self.bits(), self.task, self.options)
        target = self.make()
        allocation = BitAllocation.parse(self.bits())
        session = ExportSession.of(prepared, allocation, type(target).__name__, target)
        session.quiet = True
        return session

    def test_it_has_a_version(self) -> None:
        assert type(self.make()).version >= 1

    @pytest.mark.parametrize("bits", ALLOWED_BITS[:-1])
    @pytest.mark.parametrize("group_size", [0, 32, 64, 100])
    @pytest.mark.parametrize("symmetric", [True, False])
    def test_a_weight_is_refused_in_words_or_takes_at_least_its_codes(
        self, bits: int, group_size: int, symmetric: bool
    ) -> None:
        target, spec = self.make(), WeightSpec(bits, group_size, symmetric)
        shape = (SHAPE[0], 4 * group_size or SHAPE[1])
        reason = target.refusal(spec, shape, "llm")
        assert isinstance(reason, str)
        if not reason:
            assert target.stored_bits(shape, spec) >= bits * shape[0] * shape[1]

    def test_what_is_exported_is_what_was_simulated(self, tmp_path: Path) -> None:
        session, out = self.session(), tmp_path / "out"
        report, proof = session.run(out, SAMPLES)
        assert isinstance(proof, Proof)
        assert not proof.failures
        assert proof.weights.equal == len(session.plan.specs.keys() - report.unread)
        assert report.files == file_sizes(out)
        assert report.stored_as.keys() | report.unread >= session.plan.specs.keys()
        assert read_facts(out)["dtype"] == session.plan.eval_spec.dtype

    def test_an_export_over_the_rest_of_a_killed_one_is_whole(self, tmp_path: Path) -> None:
        session = self.session()
        layers, plan = session.layers(), session.plan
        folder = tmp_path / "partial"
        folder.mkdir()
        first = plan.target.export(plan.source, layers, folder)
        largest = max(first.files, key=lambda name: first.files[name])
        for name in set(first.files) - {largest}:
            (folder / name).unlink()
        assert plan.target.export(plan.source, layers, folder).files == first.files
        weights = dict(plan.target.read_back(folder))
        for name in plan.specs.keys() - first.unread:
            expected = layers.dequantized(name, name in first.folded)
            expected = expected.to(getattr(torch, first.precision)).float()
            assert torch.equal(weights[name], expected), name

    def test_commands_name_the_folder(self, tmp_path: Path) -> None:
        for command in self.make().commands(tmp_path):
            assert str(tmp_path) in command
