"""`mmq size`: components and size of a model under an allocation, from its configuration alone."""

from collections.abc import Mapping
from dataclasses import dataclass

import click

from mmq.cli.command import command
from mmq.cli.options import options_from
from mmq.cli.places import print_json
from mmq.config import DEFAULT_QUANTIZER, QUANTIZER_HELP, option


@dataclass(frozen=True, slots=True)
class SizeOptions:
    """A model, and how to quantize it."""

    model: str = option(
        "", "Bundled model, local folder or hub name (e.g. llava-hf/llava-1.5-7b-hf)."
    )
    config: str = option("", "Read this config.json instead of a model.")
    quantizer: str = option(DEFAULT_QUANTIZER, QUANTIZER_HELP)
    target: str = option("", "Also print the size of the files of this export target (e.g. gguf).")
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
    dtype: str = option(
        "auto", "With --device-map: dtype of the weights, e.g. bfloat16; auto: the checkpoint's."
    )
    allow_unread_weights: bool = option(
        False, "Accept a checkpoint that has weights which the model does not use."
    )


@command("size", "mmq size --model embedded-blip2 --bits vit=4,qformer=8,llm=3", as_json=True)
@options_from(SizeOptions)
def size(options: SizeOptions, plugin_options: Mapping[str, str], as_json: bool) -> None:
    """Print components and size of a model under an allocation, from its configuration alone.

    Sizes are nominal (bits only) and as stored (with scales, zero points and input scales).
    """
    from mmq.cli.size_report import SizeReport

    report = SizeReport.of(options, plugin_options)
    if as_json:
        print_json(report.to_json())
    else:
        click.echo(report.text())
