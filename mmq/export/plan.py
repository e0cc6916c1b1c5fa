"""Plan an export: check it and compute its size before anything is loaded."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

from mmq.allocation.allocation import BitAllocation, allowed_bits
from mmq.contracts import options as plugin_options
from mmq.contracts import registry
from mmq.contracts.quantizer import Quantizer
from mmq.contracts.target import ExportSource, Target, WeightSpec
from mmq.errors import InputError
from mmq.eval_spec import EvalSpec
from mmq.export.checkpoint_writer import WIDTHS
from mmq.export.side_files import side_files
from mmq.export.source_checkpoint import SourceCheckpoint
from mmq.export.weight_specs import planned_spec, planned_specs
from mmq.models.checkpoint_weights import Stored
from mmq.models.components import Component, Layer
from mmq.models.row_quantizer import quantizer_for
from mmq.models.skeleton import Skeleton
from mmq.system.hashing import digest

GROUP_SIZES = (32, 64, 128, 256, 0)  # offered in place of one that the target refuses
CHANGES: Mapping[str, tuple[Any, ...]] = {
    "group_size": GROUP_SIZES, "symmetric": (True, False), "foldable": (True,),
    "static_groups": (True,),
}  # fmt: skip
OFFERED = 4
EXPERTS = "only the target torch writes experts that share one parameter"


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """A checked export. specs: by name of quantized layer.

    promised_bytes: size of the folder, without the files that mmq adds.
    """

    target_name: str
    target: Target
    source: ExportSource
    checkpoint: SourceCheckpoint
    eval_spec: EvalSpec
    allocation: BitAllocation
    specs: Mapping[str, WeightSpec]
    promised_bytes: int

    @property
    def key(self) -> str:
        """A hash of everything that the files depend on; killed exports resume if it is equal."""
        target = plugin_options.values(self.target)
        named = [self.target_name.partition(":")[0], self.target.version, sorted(target.items())]
        eval_spec = self.eval_spec
        quantized = [
            eval_spec.quantizer, eval_spec.quantizer_distribution, eval_spec.quantizer_version,
            dict(eval_spec.quantizer_options), dict(eval_spec.versions),
            eval_spec.calibration if eval_spec.calibrated else "",
        ]  # fmt: skip
        return digest([named, eval_spec.model_fingerprint, quantized, str(self.allocation)])

    def as_quantized(self, specs: Mapping[str, WeightSpec]) -> "ExportPlan":
        """The plan with the layers as they were quantized: some scales need more bytes.

        InputError for one that the target cannot store after all.
        """
        check_quantized(self.target_name, self.target, specs, self.source.skeleton)
        source = replace(self.source, specs=specs)
        promised = promised_bytes(self.target, source, self.checkpoint)
        return replace(self, source=source, specs=specs, promised_bytes=promised)


def check_quantized(
    target_name: str, target: Target, specs: Mapping[str, WeightSpec], skeleton: Skeleton
) -> None:
    """InputError for a layer that, as it was quantized, the target cannot store after all."""
    for component in skeleton.components.values():
        for layer in component.layers:
            spec = specs.get(layer.name)
            if spec and (reason := target.refusal(spec, layer.shape, component.name)):
                raise InputError(
                    f"target: {target_name} cannot store {layer.name} ({spec}): {reason}"
                )


def plan_export(
    target_name: str,
    target: Target,
    allocation: BitAllocation,
    quantizer: Quantizer,
    skeleton: Skeleton,
    folder: Path,
    eval_spec: EvalSpec,
) -> ExportPlan:
    """Check an export and add up its bytes; InputError, with the nearest options that work.

    folder: the source checkpoint.
    """
    specs = check_layers(target_name, target, allocation, quantizer, skeleton)
    target.check(allocation, quantizer, skeleton)
    checkpoint = SourceCheckpoint.open(folder, skeleton)
    for component in skeleton.components.values():
        for layer in component.layers:
            if layer.name in specs:
                checkpoint.tensors_of(layer)
    source = checkpoint.as_source(skeleton, eval_spec.dtype, specs)
    promised = promised_bytes(target, source, checkpoint)
    return ExportPlan(
        target_name, target, source, checkpoint, eval_spec, allocation, specs, promised
    )


def check_layers(
    target_name: str,
    target: Target,
    allocation: BitAllocation,
    quantizer: Quantizer,
    skeleton: Skeleton,
) -> dict[str, WeightSpec]:
    """The specs of all quantized layers.

    InputError, with the nearest options that work, for the first layer that the target refuses.
    """
    specs = planned_specs(allocation, quantizer, skeleton.components)
    if not specs:
        raise InputError(
            f"allocation: {allocation} quantizes nothing, so there is nothing to export"
        )
    for name, (part, layer, spec) in specs.items():
        if reason := refusal_of(target, layer, spec, part):
            own, component = quantizer.at(spec.bits), skeleton.components[part]
            nearest = nearest_options(target, own, component, layer, spec)
            offered = "; ".join(nearest[:OFFERED]) or elsewhere(target, component, layer, spec)
            raise InputError(
                f"target: {target_name} cannot store {part} ({name}: {spec}): {reason}. "
                f"Nearest that it can store: {offered}"
            )
    return {name: spec for name, (_, _, spec) in specs.items()}


def refusal_of(target: Target, layer: Layer, spec: WeightSpec, component: str) -> str:
    """Why a target does not support a layer that is quantized in this way; "" if it does."""
    if layer.matrix.expert is not None and not target.experts:
        return EXPERTS
    return target.refusal(spec, layer.shape, component)


def elsewhere(target: Target, component: Component, layer: Layer, spec: WeightSpec) -> str:
    """A hint where no option of the quantizer works: other quantizers, or 16 bits."""
    others = []
    for plugin in registry.installed("quantizer"):
        if plugin.entry_point.extras:  # its packages may be missing, and are slow to import
            continue
        try:
            other = registry.load_class("quantizer", plugin.name, Quantizer)()
            other.check(layer.name, layer.shape)
            own = quantizer_for(component, other)
            planned = planned_spec(own, layer.shape[1], spec.bits)
        except (ValueError, TypeError):  # it cannot be imported, or needs options
            continue
        if not refusal_of(target, layer, planned, component.name):
            others.append(f"--quantizer {plugin.name}")
    return "; ".join([*others, f"{component.name}=16"])


def nearest_options(
    target: Target, quantizer: Quantizer, component: Component, layer: Layer, spec: WeightSpec
) -> list[str]:
    """Options with which the target holds such a layer, the smallest change first."""
    offers: list[tuple[tuple[int, int], str]] = []
    part = component.name
    for changes in _changes(quantizer, component.per_row):
        try:
            other = replace(quantizer, **changes)
            other.check(layer.name, layer.shape)
        except ValueError:
            continue
        changed = planned_spec(quantizer_for(component, other), layer.shape[1], spec.bits)
        for bits in allowed_bits(part)[:-1]:  # the last is unquantized
            if refusal_of(target, layer, replace(changed, bits=bits), part):
                continue
            width = [f"{part}={bits}"] if bits != spec.bits else []
            words = [f"--{k.replace('_', '-')} {_text(v)}" for k, v in changes.items()]
            text = " with ".join([*width, *([" ".join(words)] if words else [])])
            offers.append(((len(width) + len(words), abs(bits - spec.bits)), text))
    return [text for _, text in sorted(offers, key=lambda offer: offer[0])]


def _changes(quantizer: Quantizer, per_row: bool) -> Iterator[dict[str, Any]]:
    """Other values of the options that formats depend on; no change first.

    per_row: for a table, which has no groups.
    """
    names = {field.name for field in fields(quantizer)} - ({"group_size"} if per_row else set())
    choices = [
        [{}, *({name: value} for value in values)]
        for name, values in CHANGES.items()
        if name in names
    ]
    for parts in product(*choices):
        changes = {name: value for part in parts for name, value in part.items()}
        if all(getattr(quantizer, name) != value for name, value in changes.items()):
            yield changes


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def promised_bytes(target: Target, source: ExportSource, checkpoint: SourceCheckpoint) -> int:
    """Bytes of the exported folder, without the files that mmq adds."""
    planned = target.planned_bytes(source)
    if planned is not None:
        return planned
    layers = {x.name: x for c in source.skeleton.components.values() for x in c.layers}
    replaced = {name for key in source.specs for name in checkpoint.tensors_of(layers[key])}
    quantized = sum(target.stored_bits(layers[k].shape, spec) for k, spec in source.specs.items())
    others = sum(stored_bytes(t) for n, t in checkpoint.stored.items() if n not in replaced)
    beside = sum(path.stat().st_size for _, path in side_files(checkpoint.folder))
    return round(quantized / 8) + others + beside


def stored_bytes(tensor: Stored) -> int:
    """Bytes of a stored tensor."""
    size = WIDTHS[tensor.dtype]
    for length in tensor.shape:
        size *= length
    return size
