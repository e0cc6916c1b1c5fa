"""Facts about a model before it is loaded, and the checks of its options."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mmq.allocation.allocation import UNQUANTIZED, BitAllocation
from mmq.allocation.parts import finest
from mmq.config import TaskOptions
from mmq.contracts.quantizer import Quantizer
from mmq.contracts.vlm import InputOptions
from mmq.data.source import limited
from mmq.errors import InputError
from mmq.models.chat_template import parse_template
from mmq.models.loading import fingerprint, load_processor, locate, read_config
from mmq.models.optional_parts import named_parts, parse_parts
from mmq.models.placement import within_memory
from mmq.models.row_quantizer import quantizer_for
from mmq.models.skeleton import Skeleton, check_weights, skeleton
from mmq.models.spread import Spread, resolve_placement
from mmq.models.stages import default_cache
from mmq.quantization.working_memory import working_bytes
from mmq.system.device import DTYPES, check_dtype, resolve_device, resolve_dtype

log = logging.getLogger(__name__)
Allocations = Callable[[Sequence[str]], Iterable[BitAllocation]]


@dataclass
class ModelSetup:
    """Facts about the model before it is loaded: the same for all tasks."""

    options: TaskOptions
    device: str
    inputs: InputOptions
    checkpoint: str
    config: Any
    dtype: str
    parts: tuple[str, ...]
    outline: Skeleton
    widths: Mapping[str, Sequence[int]]

    @classmethod
    def of(
        cls,
        options: TaskOptions,
        quantizers: Sequence[tuple[str, Quantizer]],
        allocations: Allocations,
    ) -> "ModelSetup":
        """Check the settings, the checkpoint, and that the quantizers support its layers."""
        device, inputs = check_settings(options)
        checkpoint = locate(options.model, options.allow_pickle)
        config = read_config(checkpoint)
        dtype = resolve_dtype(options.dtype, device, config)
        device = resolve_placement(options.device_map, options.max_memory, device)
        parts = requested_parts(options)
        outline = skeleton(checkpoint, parts)
        widths = tried_widths(outline, allocations(list(outline.components)))
        for _, quantizer in quantizers:
            check_layers(outline, quantizer, widths)
        if outline.left_out:
            log.warning("%s: %s", options.model, outline.left_out)
        if isinstance(device, Spread):
            working = working_bytes(outline.components, DTYPES[dtype])
            device = within_memory(device, working)
        check_weights(checkpoint, options.allow_unread_weights)
        return cls(options, device, inputs, checkpoint, config, dtype, parts, outline, widths)

    @cached_property
    def processor(self) -> Any:
        """The model's processor, loaded when it is needed."""
        return load_processor(self.outline.family, self.checkpoint, self.inputs)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the checkpoint's files."""
        return fingerprint(self.checkpoint, self.config, self.dtype)


def requested_parts(options: TaskOptions) -> tuple[str, ...]:
    """The optional parts that `parts` names, or the allocation of a single trial."""
    return parse_parts(",".join([options.parts, *named_parts(getattr(options, "bits", ""))]))


def check_settings(options: TaskOptions) -> tuple[str, InputOptions]:
    """Check the settings before reading anything; returns the device and the input options."""
    for name in ("calibration_samples", "seed"):
        if getattr(options, name) < 0:
            raise InputError(f"{name}: {getattr(options, name)} is negative")
    default_cache()
    limited(options.limit, total=0)
    check_dtype(options.dtype)
    inputs = InputOptions(
        parse_template(options.template),
        options.system_prompt,
        options.min_pixels,
        options.max_pixels,
    )
    return resolve_device(options.device), inputs


def tried_widths(
    outline: Skeleton, allocations: Iterable[BitAllocation]
) -> dict[str, Sequence[int]]:
    """The widths below 16 that the allocations use, by component.

    InputError for an allocation that quantizes a part without layers.
    """
    result: dict[str, set[int]] = {name: set() for name in outline.components}
    parts = {c.part(layer) for c in outline.components.values() for layer in c.layers}
    for allocation in allocations:
        for name, bits in allocation.bits:
            if bits != UNQUANTIZED and not parts & set(finest(name, outline.components)):
                raise InputError(f"allocation: {name} has no linear layer in this model")
        for part, bits in allocation.widths(outline.components).items():
            result[part[0]] |= {bits} - {UNQUANTIZED}
    return {name: sorted(widths) for name, widths in result.items()}


def check_layers(
    outline: Skeleton, quantizer: Quantizer, widths: Mapping[str, Sequence[int]]
) -> None:
    """InputError if an allocation quantizes a layer that the quantizer does not support."""
    for name, component in outline.components.items():
        own = quantizer_for(component, quantizer)
        for own_quantizer in dict.fromkeys(own.at(bits) for bits in widths[name]):
            for layer in component.layers:
                own_quantizer.check(layer.name, layer.shape)
