"""Output errors of quantized layers, all measured on the unquantized model's inputs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice

from mmq.artifacts.artifacts import Artifacts
from mmq.artifacts.component_blocks import component_blocks
from mmq.data.calibration import Calibration
from mmq.models.components import Layer
from mmq.models.loading import LoadedModel
from mmq.quantization.block_inputs import Groups, read
from mmq.quantization.blocks import Block
from mmq.quantization.capture import capture
from mmq.system.progress import progress_bar
from mmq.tensors.layer_inputs import merged, output_error, output_square
from mmq.tensors.quantized_weight import QuantizedLayer

Errors = dict[tuple[str, str, int], list[float]]  # (label, component, bits): one per layer


def output_errors(
    model: LoadedModel,
    calibration: Calibration,
    artifacts: Mapping[str, Artifacts],
    widths: Sequence[int],
    quiet: bool = False,
) -> Errors:
    """|X (W - Q)^T| / |X W^T| of every layer that the pairs reach, after `Artifacts.fill`.

    X: the layer's inputs in the unquantized model. One pass over the pairs serves all quantizers
    and widths, calibrated or not.
    """
    errors: Errors = {}
    for name, component in model.components.items():
        stored = {
            (label, bits): source.layers(model, name, bits)
            for label, source in artifacts.items()
            for bits in widths
        }
        errors |= {(label, name, bits): [] for label, bits in stored}
        if component.per_row:  # a table has no inputs
            continue
        for blocks in component_blocks(model, component):
            calls = capture(blocks, partial(calibration.forwards, model))
            bar = progress_bar(
                blocks, desc=f"measure {name}", unit="block", leave=False, quiet=quiet
            )
            for number, block in enumerate(bar):
                groups = read(block, calls, number, advance=True)
                squares: dict[str, float] = {}  # |X W^T|^2 of this block's layers
                for (label, bits), layers in stored.items():
                    of_block = islice(layers, len(block.layers))  # the block's layers
                    errors[label, name, bits] += _errors(block, groups, of_block, squares)
    return errors


def _errors(
    block: Block,
    groups: Groups,
    stored: Iterable[tuple[Layer, QuantizedLayer]],
    squares: dict[str, float],
) -> Iterator[float]:
    """Output errors of a block's layers. squares: |X W^T|^2 by layer, computed once."""
    for layer, quantized in stored:
        parts = [inputs for names, inputs in groups.items() if layer.name in names]
        if parts:
            gram = merged(parts).gram
            weight = block.layers[layer.name].weight.to(gram.device)
            if layer.name not in squares:
                squares[layer.name] = output_square(weight, gram)
            plain = quantized.weight.dequantize().to(weight.device)
            yield output_error(weight, plain, gram, squares[layer.name])
