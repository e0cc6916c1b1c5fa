"""`mmq size`: components and size of a model under an allocation, from its configuration alone."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import click

from mmq.allocation.allocation import UNQUANTIZED, BitAllocation, check_bits
from mmq.allocation.parts import finest
from mmq.cli.options import options_from
from mmq.config import QUANTIZER_HELP, option
from mmq.contracts import options as plugin_options
from mmq.contracts import registry
from mmq.contracts.quantizer import Quantizer
from mmq.errors import InputError
from mmq.models.loading import locate
from mmq.models.size import planned_size, stored_bits
from mmq.models.skeleton import Skeleton, check_weights, skeleton
from mmq.prepare import check_layers, tried_widths


@dataclass(frozen=True, slots=True)
class SizeOptions:
    """A model, and how to quantize it."""

    model: str = option(
        "", "Bundled model, local folder or hub name (e.g. llava-hf/llava-1.5-7b-hf)."
    )
    config: str = option("", "Read this config.json instead of a model.")
    quantizer: str = option("rtn", QUANTIZER_HELP)
    bits: str = option(
        "", "Width of every component (e.g. 4), or an allocation (e.g. vit=4,llm=3)."
    )
    allow_unread_weights: bool = option(
        False, "Accept a checkpoint that has weights which the model does not use."
    )


@click.command("size")
@options_from(SizeOptions)
def size(chosen: SizeOptions, extra: Mapping[str, str]) -> None:
    """Print components and size of a model under an allocation, from its configuration alone.

    Sizes are nominal (bits only) and as stored (with scales, zero points and input scales).
    """
    if bool(chosen.model) == bool(chosen.config):
        raise InputError("size: give one of --model NAME and --config FILE")
    if chosen.config and not Path(chosen.config).is_file():
        raise InputError(f"config: {chosen.config!r} is not a file")
    loaded = registry.load_class("quantizer", chosen.quantizer, Quantizer)
    own = [field.name for field in fields(chosen)]
    given = plugin_options.distribute(extra, {"quantizer": loaded}, own)["quantizer"]
    quantizer: Quantizer = plugin_options.build(loaded, given)
    source = chosen.config or locate(chosen.model)
    seen = skeleton(source)
    check_weights(source, chosen.allow_unread_weights)
    plan = parse_plan(chosen.bits, tuple(seen.components))
    check_layers(seen, quantizer, tried_widths(seen, [plan]))
    click.echo(_components(seen, plan, quantizer))
    click.echo(f"\n{'unquantized':<20}{'linears':>9}{'weights':>18}")
    for module in seen.unquantized:
        click.echo(f"{'':<20}{module.linears or '':>9}{module.weights:>18,}  {module.name}")
    if any("." in name for name, _ in plan.bits):
        click.echo(f"\n{plan}")
    if seen.unread_blocks:
        click.echo(
            f"\n{seen.unread_blocks} last vision blocks count in the size, but nothing reads "
            f"their output: their bits do not change a score."
        )
    planned = planned_size(plan, seen.components, seen.parameters, quantizer)
    click.echo(
        f"\nnominal: {planned.bpw:.4f} bpw, {planned.gib:.4g} GiB (without scales and zero points)"
        f"\nstored:  {planned.stored_bpw:.4f} bpw, {planned.stored_gib:.4g} GiB "
        f"({described(chosen.quantizer, quantizer)})"
    )


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
    shown = plugin_options.values(quantizer)
    options = [f"{key} {shown[key]}" for key in ("group_size", "symmetric") if key in shown]
    return ", ".join([name, *options])


def _components(seen: Skeleton, plan: BitAllocation, quantizer: Quantizer) -> str:
    """One line per component: what it has, its width, and what it takes."""
    widths = plan.widths(seen.components)
    stored = stored_bits(seen.components, quantizer, set(widths.values()))
    lines = [
        f"{'component':<12}{'blocks':>8}{'linears':>9}{'weights':>18}{'share':>8}{'bits':>7}"
        f"{'stored':>8}"
    ]
    for name, component in seen.components.items():
        share = component.weights / seen.parameters
        bits = sum(stored[part, widths[part]] for part in finest(name, seen.components))
        each = bits / component.weights if component.weights else UNQUANTIZED
        lines.append(
            f"{name:<12}{component.blocks:>8}{len(component.layers):>9}{component.weights:>18,}"
            f"{share:>8.1%}{plan.within(name):>7}{each:>8.3f}"
        )
    rest = seen.parameters - sum(component.weights for component in seen.components.values())
    lines.append(
        f"{'the rest':<12}{'':>17}{rest:>18,}{rest / seen.parameters:>8.1%}{UNQUANTIZED:>7}"
        f"{UNQUANTIZED:>8.3f}"
    )
    return "\n".join([*lines, f"{'all':<12}{'':>17}{seen.parameters:>18,}"])
