"""Exports of embedded models for tests: sessions of a few samples, and faulty targets."""

from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache

from mmq_plugins.targets.torch_checkpoint import TorchCheckpoint

from mmq.allocation.allocation import BitAllocation
from mmq.artifacts.store import Store
from mmq.config import EvalOptions
from mmq.export.blind import Blind
from mmq.export.session import ExportSession
from mmq.export.targets import build_target
from mmq.models.optional_parts import named_parts
from mmq.prepare import prepare
from mmq.system.home import home

TASKS = {"embedded-retrieval": "retrieval"}
BEAMLESS = {"num-beams": "1"}


@cache
def prepared_for(model, bits, options=(), quantizer="rtn", limit="6"):
    """A prepared eval spec for trials of one allocation."""
    task = TASKS.get(model, "vqa")
    plugin_options = dict(options) | (BEAMLESS if task == "vqa" else {})
    eval_options = EvalOptions(
        model=model, task=task, quantizer=quantizer, limit=limit, calibration_samples=4,
        parts=",".join(named_parts(bits)),
    )  # fmt: skip
    allocation = BitAllocation.parse(bits)
    return prepare(eval_options, plugin_options, lambda parts: [allocation.over(parts)])


def session_for(model, bits, target="torch", quantizer="rtn", **options):
    """An export session; options: of the quantizer."""
    given = tuple((k.replace("_", "-"), str(v)) for k, v in options.items())
    prepared = prepared_for(model, bits, given, quantizer)
    built = build_target(target, {}) if isinstance(target, str) else target
    name = target if isinstance(target, str) else type(target).__name__
    session = ExportSession.of(prepared, BitAllocation.parse(bits), name, built)
    session.quiet = True
    return session


def simulated(session):
    """The simulated model of a session's allocation."""
    model = session.prepared.load()
    session.prepared.artifacts(Store(home() / "store"), quiet=True).write_(
        model, session.plan.allocation
    )
    return model


@dataclass(frozen=True)
class OffByOne(TorchCheckpoint):
    """Reads the first weight of the Q-Former back wrong, and loses the second."""

    def read_back(self, folder):
        number = -1
        for name, weight in super().read_back(folder):
            number += "qformer" in name
            if number != 1 or "qformer" not in name:
                yield name, weight + (number == 0)


@dataclass(frozen=True)
class Talkative(TorchCheckpoint):
    """Writes a file that was not planned."""

    def export(self, source, layers, folder):
        (folder / "extra.bin").write_bytes(bytes(10**6))
        return super().export(source, layers, folder)


@dataclass(frozen=True)
class Unseeing(TorchCheckpoint):
    """Its engine ignores pictures."""

    def open(self, folder, device):
        with super().open(folder, device) as model:
            return nullcontext(Blind(model))


@dataclass(frozen=True)
class UnseeingExact(Unseeing):
    """The same, for an engine whose outputs must equal the simulation's."""

    exact = True
