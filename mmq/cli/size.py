"""`mmq size`: components and size of a model under an allocation, from its configuration alone."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from mmq.allocation.allocation import UNQUANTIZED, BitAllocation, check_bits
from mmq.allocation.parts import finest
from mmq.cli.options import options_from
from mmq.config import QUANTIZER_HELP, option
from mmq.contracts import options as option_fields
from mmq.contracts import registry
from mmq.contracts.quantizer import Quantizer
from mmq.contracts.target import Target
from mmq.errors import InputError, unknown
from mmq.export.side_files import source_folder
from mmq.export.sizes import BYTES_PER_GIB, TargetSizes
from mmq.export.support import supported_widths
from mmq.export.targets import build_target, split_options
from mmq.model_setup import check_layers, tried_widths
from mmq.models.loading import locate, read_config
from mmq.models.optional_parts import named_parts, parse_parts
from mmq.models.placement import describe_placement
from mmq.models.size import planned_size, stored_bits
from mmq.models.skeleton import Skeleton, check_weights, on_meta, skeleton
from mmq.models.spread import Spread, resolve_placement
from mmq.quantization import by_width
from mmq.system.device import DTYPES, resolve_dtype

SIZE_OPTIONS = ("group_size", "symmetric", "symmetric_no_clipping", "scale_dtype")


@dataclass(frozen=True, slots=True)
class SizeOptions:
    """A model, and how to quantize it."""

    model: str = option(
        "", "Bundled model, local folder or hub name (e.g. llava-hf/llava-1.5-7b-hf)."
    )
    config: str = option("", "Read this config.json instead of a model.")
    quantizer: str = option("rtn", QUANTIZER_HELP)
    target: str = option("", "Also print what the files of this export target weigh (e.g. gguf).")
    bits: str = option(
        "", "Width of every component (e.g. 4), or an allocation (e.g. vit=4,llm=3)."
    )
    parts: str = option(
        "", "Also quantize these parts outside blocks: embed, projector, head (e.g. embed,head)."
    )
    device_map: str = option(
        "", "Print where a model that fits on no device would be placed (auto)."
    )
    max_memory: str = option(
        "", "With --device-map: memory to use per device (e.g. 0=20GiB,cpu=12GiB); empty: all."
    )
    dtype: str = option("float16", "With --device-map: dtype of the weights (e.g. bfloat16).")
    allow_unread_weights: bool = option(
        False, "Accept a checkpoint that has weights which the model does not use."
    )


@click.command("size")
@options_from(SizeOptions)
def size(options: SizeOptions, plugin_options: Mapping[str, str]) -> None:
    """Print components and size of a model under an allocation, from its configuration alone.

    Sizes are nominal (bits only) and as stored (with scales, zero points and input scales).
    """
    if bool(options.model) == bool(options.config):
        raise InputError("size: give either --model NAME or --config FILE")
    if options.config and not Path(options.config).is_file():
        raise InputError(f"config: {options.config!r} is not a file")
    target = None
    if options.target:
        if options.config:
            raise InputError("target: its files need --model, whose checkpoint they are made from")
        target_options, plugin_options = split_options(options.target, plugin_options)
        target = build_target(options.target, target_options)
    loaded = registry.load_class("quantizer", options.quantizer, Quantizer)
    own = [field.name for field in fields(options)]
    given = option_fields.distribute(plugin_options, {"quantizer": loaded}, own)["quantizer"]
    quantizer = by_width.build(loaded, given)
    source = options.config or locate(options.model)
    parts = parse_parts(",".join([options.parts, *named_parts(options.bits)]))
    outline = skeleton(source, parts)
    check_weights(source, options.allow_unread_weights)
    plan = parse_plan(options.bits, tuple(outline.components))
    if target is not None:
        quantizer = _for_target(options.target, target, quantizer, given, outline, plan)
    check_layers(outline, quantizer, tried_widths(outline, [plan]))
    click.echo(_components(outline, plan, quantizer))
    click.echo(f"\n{'unquantized':<20}{'linears':>9}{'weights':>18}")
    for module in outline.unquantized:
        click.echo(f"{'':<20}{module.linears or '':>9}{module.weights:>18,}  {module.name}")
    if any("." in name for name, _ in plan.bits):
        click.echo(f"\n{plan}")
    if outline.unread_blocks:
        click.echo(
            f"\nLast vision blocks whose output is not used: {outline.unread_blocks}. They count "
            f"in the size, but their bits do not affect the score."
        )
    planned = planned_size(plan, outline.components, outline.parameters, quantizer)
    click.echo(
        f"\nnominal: {planned.bpw:.4f} bpw, {planned.gib:.4g} GiB (without scales and zero points)"
        f"\nstored:  {planned.stored_bpw:.4f} bpw, {planned.stored_gib:.4g} GiB "
        f"({described(options.quantizer, quantizer)})"
        f"\nreach:   {planned.reach:.1%} of the weights are quantized"
    )
    if target is not None:
        click.echo(_files(options, target, quantizer, outline, plan))
    if outline.left_out:
        click.echo(f"\n{outline.left_out}")
    if options.device_map or options.max_memory:
        click.echo(f"\n{_placement(options, source, outline)}")


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
) -> str:
    """One line: all files of the target, as `mmq export` writes them."""
    widths = {name: (bits,) for name, bits in plan.bits}
    folder = source_folder(options.model)
    dtype = resolve_dtype("auto", "cpu", read_config(str(folder)))
    sizes = TargetSizes.of(options.target, target, quantizer, outline, folder, dtype, widths)
    exact = sizes.exact(plan)
    return f"{options.target}: {exact:,} bytes, {exact / BYTES_PER_GIB:.4g} GiB (all files)"


def _placement(options: SizeOptions, source: str, outline: Skeleton) -> str:
    """Where the weights would go."""
    if options.dtype not in DTYPES:
        raise unknown("dtype", options.dtype, DTYPES)
    spread = resolve_placement(options.device_map, options.max_memory, "cpu")
    assert isinstance(spread, Spread)
    root = on_meta(source, outline.family, read_config(source))
    return describe_placement(root, outline.components, DTYPES[options.dtype], spread)


def parse_plan(text: str, parts: tuple[str, ...]) -> BitAllocation:
    """An allocation from "4", for everything, or "vit=4,llm=3"; unquantized from "".

    >>> str(parse_plan("4", ("vit", "llm")))
    'vit=4 llm=4'
    """
    if not text.strip():
        return BitAllocation.uniform(parts, UNQUANTIZED)
    if text.strip().isdecimal():
        return BitAllocation.uniform(parts, check_bits(int(text)))
    return BitAllocation.parse(text).over(parts)


def described(name: str, quantizer: Quantizer) -> str:
    """A quantizer with the options that its sizes may depend on."""
    shown = by_width.option_values(quantizer)
    options = [f"{key} {shown[key]}" for key in SIZE_OPTIONS if key in shown]
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
