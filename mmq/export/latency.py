"""Time per answer in a target's engine: measured per component and width, then added up.

An engine computes one layer after another, so that the time of an answer is a sum over them. Few
whole models are timed: a reference, and for each component and each of its other widths the
reference with that change. Codes do not change a time, so that weights are rounded to nearest,
straight from the checkpoint.
"""

import logging
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from mmq.allocation.allocation import UNQUANTIZED, BitAllocation
from mmq.contracts import options as plugin_options
from mmq.contracts.target import ExportedLayer
from mmq.contracts.vlm import GenerationConfig, Request
from mmq.errors import InputError
from mmq.export.sizes import PartSums, TargetSizes
from mmq.models.size import part_weights
from mmq.quantization.by_width import option_values
from mmq.system import sealed
from mmq.system.disk import free, in_mib
from mmq.system.hashing import digest
from mmq.system.home import home
from mmq.system.processor import machine
from mmq.system.progress import progress_bar

log = logging.getLogger(__name__)
ROUNDS = 3  # each opens every model once
REQUESTS = 3  # requests timed per round
VERSION = 1  # raise it whenever the measurement changes


@dataclass(frozen=True, slots=True)
class Workload:
    """The timed work: requests of the evaluation, answered in this many tokens, on a device."""

    requests: Sequence[Request]
    new_tokens: int
    device: str = "cpu"

    def __str__(self) -> str:
        return f"{len(self.requests)} requests, answers of {self.new_tokens} tokens"


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A whole model's measured time per answer and the predicted sum, in ms.

    measured: as if the machine were as fast as when the sums were measured.
    """

    allocation: str
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """How far the sum is off, as a share of the measured time."""
        return self.predicted / self.measured - 1

    def __str__(self) -> str:
        return (
            f"{self.allocation}: {self.measured:.4g} ms measured, {self.predicted:.4g} ms "
            f"predicted ({self.error:+.1%})"
        )


def time_answers(
    sizes: TargetSizes,
    folders: Sequence[Path],
    work: Workload,
    rounds: int = ROUNDS,
    quiet: bool = False,
) -> list[float]:
    """The median seconds per answer of each exported folder, in interleaved rounds.

    Every round opens one model after another, so that a machine that slows down slows all of
    them. The first answer of an opened model warms it up and does not count.
    """
    times: list[list[float]] = [[] for _ in folders]
    config = GenerationConfig(max_new_tokens=work.new_tokens)
    total = rounds * len(folders)
    with progress_bar(
        total=total, desc="time answers", unit="model", leave=False, quiet=quiet
    ) as bar:
        for _ in range(rounds):
            for own, folder in zip(times, folders, strict=True):
                with sizes.target.open(folder, work.device) as model:
                    model.time_answer(work.requests[0], GenerationConfig(max_new_tokens=1))
                    answers = [model.time_answer(r, config) for r in work.requests]
                    own.append(statistics.mean(answer.seconds for answer in answers))
                bar.update()
    return [statistics.median(own) for own in times]


@dataclass(slots=True)
class Latencies:
    """Times of models in a target's engine on this machine, cached in mmq's home.

    fingerprint: of the model.
    """

    sizes: TargetSizes
    fingerprint: str
    work: Workload
    quiet: bool = False

    @property
    def machine(self) -> str:
        """The machine, with the threads that the engine has."""
        threads = getattr(self.sizes.target, "threads", 0) or torch.get_num_threads()
        return machine(self.work.device, threads)

    def sums(self, widths: Mapping[str, Sequence[int]]) -> PartSums:
        """Seconds per answer as a sum over the parts of a search. widths: by part.

        Within a component, parts share its change by their number of weights.
        """
        components = self.sizes.source.skeleton.components
        tried = self._tried(widths)
        reference = _reference(tried)
        pairs = [(n, b) for n, own in tried.items() for b in own if b != reference[n]]
        changed = [BitAllocation.of(reference | {name: bits}) for name, bits in pairs]
        first, *others = self.seconds([BitAllocation.of(reference), *changed])
        weights = dict(zip(widths, part_weights(widths, components), strict=True))
        changes = {(part, reference[part.split(".")[0]]): 0.0 for part in widths}
        for (name, bits), seconds in zip(pairs, others, strict=True):
            for part in (part for part in widths if part.split(".")[0] == name):
                share = weights[part] / components[name].weights
                changes[part, bits] = share * (seconds - first)
        return PartSums(first, changes)

    def _tried(self, widths: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
        """All widths of each component."""
        return {
            name: sorted(
                {b for part, own in widths.items() for b in own if part.split(".")[0] == name}
            )
            for name in self.sizes.source.skeleton.components
        }

    def confirm(
        self, predicted: Mapping[str, float], widths: Mapping[str, Sequence[int]], total: float
    ) -> list[Confirmed]:
        """Whole models' measured and predicted times, by allocation. widths, total: of the sums.

        The reference of the sums is timed with them: if the machine is slower now, it is slower
        for all.
        """
        reference = BitAllocation.of(_reference(self._tried(widths)))
        allocations = [BitAllocation.parse(name) for name in predicted]
        first, *measured = self.seconds([reference, *allocations])
        scale = 1000 * total / first
        pairs = zip(predicted.items(), measured, strict=True)
        return [Confirmed(name, ms, scale * seconds) for (name, ms), seconds in pairs]

    def seconds(self, allocations: Sequence[BitAllocation]) -> list[float]:
        """The time per answer of these models, all measured together unless all are cached.

        Times of different sessions are not compared: a machine has faster and slower days.
        """
        path = self._path()
        cached = sealed.read_json(path) or {}
        key = digest(sorted(map(str, allocations)))
        if key not in cached:
            cached[key] = dict(
                zip(map(str, allocations), self._measured(allocations), strict=True)
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            sealed.write_json(path, cached)
        return [cached[key][str(allocation)] for allocation in allocations]

    def _path(self) -> Path:
        """Where times of this model, engine, machine and workload are."""
        sizes, work = self.sizes, self.work
        requests = [[r.prompt, *(image.digest() for image in r.images)] for r in work.requests]
        target = [sizes.target_name, sizes.target.version, plugin_options.values(sizes.target)]
        key = [
            VERSION, ROUNDS, self.machine, sizes.target.engine_version(), target,
            self.fingerprint, sizes.source.dtype, option_values(sizes.quantizer),
            requests, work.new_tokens,
        ]  # fmt: skip
        return home() / "latency" / f"{digest(key)}.json"

    def _measured(self, allocations: Sequence[BitAllocation]) -> list[float]:
        scratch = home() / "latency"
        scratch.mkdir(parents=True, exist_ok=True)
        size = sum(map(self.sizes.exact, allocations))
        if size > (left := free(scratch)):
            raise InputError(
                f"cost: timing {len(allocations)} models needs {in_mib(size)} in {scratch}, and "
                f"{in_mib(left)} are free; free some, set MMQ_HOME, or search fewer --bits"
            )
        with ExitStack() as stack:
            folders = []
            for allocation in allocations:
                folder = Path(tempfile.mkdtemp(prefix="timed-", dir=scratch))
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
                self._write(allocation, folder)
                folders.append(folder)
            return time_answers(self.sizes, folders, self.work, quiet=self.quiet)

    def _write(self, allocation: BitAllocation, folder: Path) -> None:
        """Export a model whose weights are rounded to nearest, one layer in memory at a time."""
        sizes = self.sizes
        source = sizes.source_for(allocation)

        def layers() -> Iterator[ExportedLayer]:
            for name, component in source.skeleton.components.items():
                for layer in component.layers:
                    tensor = sizes.checkpoint.weight(layer)
                    spec = source.specs.get(layer.name)
                    weight = (
                        tensor if spec is None
                        else sizes.quantizer.quantize(tensor.float(), spec.bits)
                    )  # fmt: skip
                    yield ExportedLayer(layer.name, name, weight)

        sizes.target.export(source, layers(), folder)


def _reference(tried: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """The widest quantized width of each component, 16 for one that is never quantized."""
    return {
        name: max((b for b in own if b != UNQUANTIZED), default=UNQUANTIZED)
        for name, own in tried.items()
    }
