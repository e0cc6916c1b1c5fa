"""The result of `mmq size`: what a model takes under an allocation, as text and as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mmq.allocation.allocation import UNQUANTIZED, BitAllocation, allocator
from mmq.allocation.parts import finest
from mmq.cli.size import SizeOptions
from mmq.contracts import options as option_fields
from mmq.contracts import registry
from mmq.contracts.quantizer import Quantizer
from mmq.contracts.target import Target
from mmq.errors import InputError
from mmq.export.side_files import source_folder
from mmq.export.sizes import TargetSizes
from mmq.export.support import supported_widths
from mmq.export.targets import build_target, split_options
from mmq.model_setup import check_layers, tried_widths
from mmq.models.loading import locate, read_config
from mmq.models.optional_parts import named_parts, parse_parts
from mmq.models.placement import describe_placement, within_memory
from mmq.models.size import Size, planned_size, stored_bits
from mmq.models.skeleton import Skeleton, check_weights, on_meta, skeleton
from mmq.models.spread import Spread, resolve_placement
from mmq.quantization import by_width
from mmq.quantization.working_memory import working_bytes
from mmq.system.device import DTYPES, check_dtype, resolve_device, resolve_dtype
from mmq.system.disk import GIB

SIZE_OPTIONS = ("group_size", "symmetric", "symmetric_no_clipping", "scale_dtype")


@dataclass(frozen=True, slots=True)
class SizeReport:
    """The size of a model under an allocation.

    files: bytes of all files of the target; None without one. placement: where a model that fits
    on no device would go; "" unless requested.
    """

    options: SizeOptions
    quantizer: Quantizer
    outline: Skeleton
    plan: BitAllocation
    planned: Size
    files: int | None
    placement: str

    @classmethod
    def of(cls, options: SizeOptions, plugin_options: Mapping[str, str]) -> "SizeReport":
        """Check everything and plan; InputError for the first problem."""
        target, plugin_options = _target(options, plugin_options)
        loaded = registry.load_class("quantizer", options.quantizer, Quantizer)
        own = [field.name for field in fields(options)]
        target_options = option_fields.distribute(plugin_options, {"quantizer": loaded}, own)[
            "quantizer"
        ]
        quantizer = by_width.build(loaded, target_options)
        source = options.config or locate(options.model)
        parts = parse_parts(",".join([options.parts, *named_parts(options.bits)]))
        outline = skeleton(source, parts)
        check_weights(source, options.allow_unread_weights)
        plan = allocator(options.bits or str(UNQUANTIZED))(list(outline.components))
        if target is not None:
            quantizer = _for_target(
                options.target, target, quantizer, target_options, outline, plan
            )
        check_layers(outline, quantizer, tried_widths(outline, [plan]))
        return cls(
            options,
            quantizer,
            outline,
            plan,
            planned_size(plan, outline.components, outline.parameters, quantizer),
            None if target is None else _files(options, target, quantizer, outline, plan),
            _placement(options, source, outline),
        )

    def text(self) -> str:
        """Tables of components and of what stays unquantized, and the sizes."""
        outline, planned = self.outline, self.planned
        lines = [_components(outline, self.plan, self.quantizer)]
        lines.append(f"\n{'unquantized':<20}{'linears':>9}{'weights':>18}")
        lines += [
            f"{'':<20}{module.linears or '':>9}{module.weights:>18,}  {module.name}"
            for module in outline.unquantized
        ]
        if any("." in name for name, _ in self.plan.bits):
            lines.append(f"\n{self.plan}")
        if outline.unread_blocks:
            lines.append(
                f"\nLast vision blocks whose output is not used: {outline.unread_blocks}. They "
                f"count in the size, but their bits do not affect the score."
            )
        lines += [
            f"\nnominal: {planned.bpw:.4f} bpw, {planned.gib:.4g} GiB "
            f"(without scales and zero points)",
            f"stored:  {planned.stored_bpw:.4f} bpw, {planned.stored_gib:.4g} GiB "
            f"({described(self.options.quantizer, self.quantizer)})",
            f"reach:   {planned.reach:.1%} of the weights are quantized",
        ]
        if self.files is not None:
            gib = self.files / GIB
            lines.append(f"{self.options.target}: {self.files:,} bytes, {gib:.4g} GiB (all files)")
        lines += [f"\n{text}" for text in (outline.left_out, self.placement) if text]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The same as plain data; sizes in bits per weight, GiB and bytes."""
        planned, widths = self.planned, self.plan.as_dict()
        return {
            "model": self.options.model or self.options.config,
            "quantizer": self.options.quantizer,
            "quantizer_options": by_width.option_values(self.quantizer),
            "allocation": widths,
            "parameters": self.outline.parameters,
            "components": {
                name: {
                    "blocks": component.blocks,
                    "linears": len(component.layers),
                    "weights": component.weights,
                }
                for name, component in self.outline.components.items()
            },
            "unquantized": {m.name: m.weights for m in self.outline.unquantized},
            "bpw": planned.bpw,
            "gib": planned.gib,
            "stored_bpw": planned.stored_bpw,
            "stored_gib": planned.stored_gib,
            "reach": planned.reach,
            **({} if self.files is None else {"target": self.options.target, "files": self.files}),
        }


def _target(
    options: SizeOptions, plugin_options: Mapping[str, str]
) -> tuple[Target | None, Mapping[str, str]]:
    """The export target, if one is given, and the options that are not its own."""
    if bool(options.model) == bool(options.config):
        raise InputError("size: give either --model NAME or --config FILE")
    if options.config and not Path(options.config).is_file():
        raise InputError(f"config: {options.config!r} is not a file")
    if not options.target:
        return None, plugin_options
    if options.config:
        raise InputError("target: give --model; the files' sizes depend on its checkpoint")
    own, plugin_options = split_options(options.target, plugin_options)
    return build_target(options.target, own), plugin_options


def _for_target(
    name: str,
    target: Target,
    quantizer: Quantizer,
    given: Mapping[str, Any],
    outline: Skeleton,
    plan: BitAllocation,
) -> Quantizer:
    """The quantizer with the best options for the target; InputError for unsupported widths."""
    bits = sorted({bits for _, bits in plan.bits})
    if bits == [UNQUANTIZED]:
        return quantizer
    support = supported_widths(name, target, quantizer, given, outline, bits)
    refused = [
        f"{part}={width} ({reason})"
        for part, width in plan.bits
        if (reason := support.dropped.get((part.partition(".")[0], width)))
    ]
    if refused:
        raise InputError(f"bits: the target {name} does not use {', '.join(refused)}")
    return support.quantizer


def _files(
    options: SizeOptions,
    target: Target,
    quantizer: Quantizer,
    outline: Skeleton,
    plan: BitAllocation,
) -> int:
    """Bytes of all files of the target, as `mmq export` writes them."""
    widths = {name: (bits,) for name, bits in plan.bits}
    folder = source_folder(options.model)
    dtype = resolve_dtype("auto", "cpu", read_config(str(folder)))
    sizes = TargetSizes.of(options.target, target, quantizer, outline, folder, dtype, widths)
    return sizes.exact(plan)


def _placement(options: SizeOptions, source: str, outline: Skeleton) -> str:
    """Where the weights would go; "" if no option asks for it."""
    if not options.device_map and not options.max_memory:
        return ""
    check_dtype(options.dtype)
    config, device = read_config(source), resolve_device("auto")
    dtype = DTYPES[resolve_dtype(options.dtype, device, config)]
    spread = resolve_placement(options.device_map, options.max_memory, device)
    assert isinstance(spread, Spread)
    working = working_bytes(outline.components, dtype)
    root = on_meta(source, outline.family, config)
    spread = within_memory(spread, working)
    return describe_placement(root, outline.components, dtype, spread, working)


def described(name: str, quantizer: Quantizer) -> str:
    """A quantizer with the options that its sizes may depend on."""
    values = by_width.option_values(quantizer)
    options = [f"{key} {values[key]}" for key in SIZE_OPTIONS if key in values]
    return ", ".join([name, *options])


def _components(outline: Skeleton, plan: BitAllocation, quantizer: Quantizer) -> str:
    """One line per component: what it has, its width, and what it takes."""
    widths = plan.widths(outline.components)
    stored = stored_bits(outline.components, quantizer, set(widths.values()))
    lines = [
        f"{'component':<12}{'blocks':>8}{'linears':>9}{'weights':>18}{'share':>8}{'bits':>7}"
        f"{'stored':>8}"
    ]
    for name, component in outline.components.items():
        share = component.weights / outline.parameters
        bits = sum(stored[part, widths[part]] for part in finest(name, outline.components))
        average_bits = bits / component.weights if component.weights else UNQUANTIZED
        lines.append(
            f"{name:<12}{component.blocks:>8}{len(component.layers):>9}{component.weights:>18,}"
            f"{share:>8.1%}{plan.within(name):>7}{average_bits:>8.3f}"
        )
    rest = outline.parameters - sum(component.weights for component in outline.components.values())
    lines.append(
        f"{'other':<12}{'':>17}{rest:>18,}{rest / outline.parameters:>8.1%}{UNQUANTIZED:>7}"
        f"{UNQUANTIZED:>8.3f}"
    )
    return "\n".join([*lines, f"{'all':<12}{'':>17}{outline.parameters:>18,}"])
