"""A search for an export target: supported widths, file sizes, and times per answer."""

import logging
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmq.allocation.allocation import UNQUANTIZED, BitAllocation
from mmq.analysis.fronts import Cost
from mmq.contracts import registry
from mmq.contracts.evaluator import GeneratingEvaluator
from mmq.contracts.report import QuantReport
from mmq.contracts.target import Target
from mmq.contracts.vlm import Request
from mmq.errors import InputError, unknown
from mmq.evaluation.generating import calibration_pairs
from mmq.export.latency import REQUESTS, Confirmed, Latencies, Workload
from mmq.export.side_files import source_folder
from mmq.export.sizes import PartSums, TargetSizes
from mmq.export.support import Support, supported_widths
from mmq.export.targets import build_target, check_installed, split_options
from mmq.model_setup import requested_parts
from mmq.models.loading import locate
from mmq.models.skeleton import skeleton
from mmq.prepare import Prepared, given_options
from mmq.quantization import by_width
from mmq.studies.joint_tasks import JointPrepared, joint_options
from mmq.system.disk import GIB
from mmq.task_names import has_several
from mmq.tracking import StudyRun
from mmq_search.space import Space

log = logging.getLogger(__name__)
COSTS = ("bytes", "latency")
CONFIRMED = "latency.json"  # a table of the study's run


@dataclass(frozen=True, slots=True)
class TargetRequest:
    """The target that a search is for, and whether its answers are timed."""

    name: str
    target: Target
    timed: bool


def parse_target(
    name: str, cost: str, plugin_options: Mapping[str, Any]
) -> tuple[TargetRequest | None, dict[str, Any]]:
    """The target of a search, None without one, and the options that are not the target's.

    InputError for an unknown target, and for a cost that cannot be measured.
    """
    if cost not in COSTS:
        raise unknown("cost", cost, COSTS)
    if not name:
        if cost == "latency":
            raise InputError(
                f"cost: latency is measured in the engine of a target; give one that is timed, "
                f"e.g. --target {_timed_targets()[0]}"
            )
        return None, dict(plugin_options)
    own, others = split_options(name, plugin_options)
    request = TargetRequest(name, build_target(name, own), cost == "latency")
    if request.timed and not request.target.timed:
        raise InputError(
            f"cost: the engine of {name} does not time its answers; choose --target "
            f"{' or '.join(_timed_targets())}, or --cost bytes"
        )
    check_installed(request.target, engine=request.timed)
    return request, others


def _timed_targets() -> list[str]:
    """The installed targets whose engines time their answers."""
    targets = []
    for plugin in registry.installed("target"):
        try:
            loaded = registry.load_class("target", plugin.name, Target)
        except InputError:  # a broken plugin must not hide the others
            continue
        if loaded.timed:
            targets.append(plugin.name)
    return targets


def supported_options(
    request: TargetRequest, options: Any, plugin_options: Mapping[str, Any], bits: Sequence[int]
) -> tuple[Support, dict[str, Any]]:
    """The widths that the target supports, and the plugin options with the selected ones.

    Nothing is loaded. InputError if no requested width can be used.
    """
    given = joint_options if has_several(options.task) else given_options
    classes, values = given(options, plugin_options)
    explicit = values["quantizer"]
    quantizer = by_width.build(classes["quantizer"], explicit)
    outline = skeleton(locate(options.model, options.allow_pickle), requested_parts(options))
    support = supported_widths(request.name, request.target, quantizer, explicit, outline, bits)
    before, after = by_width.option_values(quantizer), by_width.option_values(support.quantizer)
    selected = {
        f"quantizer.{k}": v for k, v in after.items() if k not in explicit and v != before[k]
    }
    return support, {**plugin_options, **selected}


def limited_space(support: Support, granularity: str) -> Space:
    """The allocations that the target supports."""
    used = tuple(sorted({width for own in support.widths.values() for width in own}))
    limits = {name: own for name, own in support.widths.items() if own != used}
    return Space(tuple(support.widths), used, granularity, tuple(limits.items()))


@dataclass(frozen=True, slots=True)
class TargetCosts:
    """Costs of allocations on a target: bytes and, if timed, seconds per answer.

    times: seconds, as a sum over the parts; None if bytes are compared.
    """

    sizes: TargetSizes
    times: PartSums | None = None
    machine: str = ""

    @property
    def name(self) -> str:
        """The target's name."""
        return self.sizes.target_name

    @property
    def recipes(self) -> Mapping[str, tuple[int, int]]:
        """The widths of the engine's own tools; see `Target`."""
        return self.sizes.target.recipes

    @property
    def kind(self) -> str:
        """The value of --cost."""
        return "bytes" if self.times is None else "latency"

    @property
    def objective(self) -> str:
        """Name of the minimized value in Optuna's dashboard."""
        return f"GiB as {self.name}" if self.times is None else f"ms per answer in {self.name}"

    def planned(self, widths: Mapping[str, int]) -> Cost:
        """The cost of an allocation as a sum over the parts, which samplers need."""
        gib = self.sizes.sums.at(widths) / GIB
        return self._cost(gib, widths)

    def exact(
        self, allocation: BitAllocation, widths: Mapping[str, int], gib: float | None = None
    ) -> Cost:
        """The cost with the exact bytes, which are `gib` if the quantized layers are known.

        widths: by part.
        """
        if gib is None:
            gib = self.sizes.exact(allocation) / GIB
        return self._cost(gib, widths)

    def measured_gib(self, allocation: BitAllocation, report: QuantReport) -> float:
        """GiB of the files as the layers were quantized; InputError if one cannot be stored."""
        return self.sizes.exact(allocation, report) / GIB

    def _cost(self, gib: float, widths: Mapping[str, int]) -> Cost:
        if self.times is None:
            return Cost(self.name, gib)
        return Cost(self.name, gib, 1000 * self.times.at(widths), self.machine)

    def to_json(self) -> dict[str, Any] | None:
        """The measured times, which all processes of a study share."""
        if self.times is None:
            return None
        changes = [[part, bits, change] for (part, bits), change in self.times.changes.items()]
        return {"total": self.times.total, "changes": changes, "machine": self.machine}

    def with_times(self, facts: Mapping[str, Any]) -> "TargetCosts":
        """The same with times that `to_json` saved."""
        changes = {(part, bits): change for part, bits, change in facts["changes"]}
        times = PartSums(facts["total"], changes)
        return replace(self, times=times, machine=facts["machine"])


@dataclass(slots=True)
class TargetSearch:
    """The costs of a search for a target, and the latencies that they are measured with."""

    request: TargetRequest
    prepared: Prepared
    space: Space
    quiet: bool = False
    sizes: TargetSizes = field(init=False)

    def __post_init__(self) -> None:
        prepared, request = self.prepared, self.request
        self.sizes = TargetSizes.of(
            request.name,
            request.target,
            prepared.quantizer,
            prepared.skeleton,
            source_folder(prepared.eval_spec.model),
            prepared.eval_spec.dtype,
            self.widths,
        )

    @property
    def widths(self) -> dict[str, tuple[int, ...]]:
        """The widths by part of the space."""
        return {name: self.space.widths(name) for name in self.space.parts}

    def costs(self) -> TargetCosts:
        """The bytes of every allocation; nothing is measured."""
        return TargetCosts(self.sizes)

    def timed_costs(self) -> TargetCosts:
        """Bytes and times; times that are not cached are measured now, in the engine."""
        latencies = self._latencies()
        widths = self.widths
        if not self.space.has_baseline:  # its time is shown with the others
            widths = {name: (*own, UNQUANTIZED) for name, own in widths.items()}
        return TargetCosts(self.sizes, latencies.sums(widths), latencies.machine)

    def confirm(self, costs: TargetCosts, predicted: Mapping[str, float]) -> list[Confirmed]:
        """Whole models timed in the engine. predicted: ms by allocation, from these costs.

        InputError on another machine than the one that the costs were measured on.
        """
        latencies = self._latencies()
        assert costs.times is not None
        if latencies.machine != costs.machine:
            raise InputError(
                f"they were measured on {costs.machine}, and this is {latencies.machine}"
            )
        return latencies.confirm(predicted, self.widths, costs.times.total)

    def _latencies(self) -> Latencies:
        fingerprint = self.prepared.eval_spec.model_fingerprint
        return Latencies(self.sizes, fingerprint, workload(self.prepared), self.quiet)


def workload(prepared: Prepared) -> Workload:
    """Requests of the evaluation, with answers as long as the correct ones are.

    Of several tasks, as many requests of each, and the mean of their lengths. InputError for an
    evaluator that ranks instead of asking.
    """
    tasks = list(prepared.tasks.values()) if isinstance(prepared, JointPrepared) else [prepared]
    count = math.ceil(REQUESTS / len(tasks))
    pairs = [_timed_pairs(task, count) for task in tasks]
    folder = source_folder(prepared.eval_spec.model)
    tokenizer = prepared.skeleton.family.load_processor(str(folder)).tokenizer
    lengths = [
        statistics.median(
            len(tokenizer(text, add_special_tokens=False).input_ids) for _, text in own
        )
        for own in pairs
    ]
    new_tokens = round(statistics.mean(lengths)) + 1  # and the end of the answer
    requests = [request for own in pairs for request, _ in own]
    return Workload(requests, new_tokens, prepared.device)


def _timed_pairs(task: Prepared, count: int) -> list[tuple[Request, str]]:
    """Requests of one task, evenly spaced, each with a correct answer."""
    evaluator = task.evaluator
    if not isinstance(evaluator, GeneratingEvaluator) or task.protocol is None:
        raise InputError(
            f"cost: the task {evaluator.task} generates no answers that could be timed; use "
            f"--cost bytes"
        )
    step = max(1, len(task.samples) // count)
    return calibration_pairs(evaluator, task.samples[::step][:count], task.protocol)


def log_confirmed(run: StudyRun, confirmed: Sequence[Confirmed]) -> None:
    """Log measured and predicted times: a table, and the largest error as a metric."""
    rows = [
        {
            "allocation": model.allocation,
            "predicted_ms": float(f"{model.predicted:.5g}"),
            "measured_ms": float(f"{model.measured:.5g}"),
            "error": float(f"{model.error:.3g}"),
        }
        for model in confirmed
    ]
    run.log_table(CONFIRMED, rows)
    errors = [abs(model.error) for model in confirmed]
    run.log(metrics={"latency/largest_error": max(errors), "latency/confirmed": len(errors)})
