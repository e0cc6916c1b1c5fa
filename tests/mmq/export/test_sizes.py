"""Bytes of a target's files: the sum over parts, and the exact bytes of an allocation."""

import random

import pytest
from mmq_plugins.quantizers.rtn import Rtn
from mmq_plugins.targets.compressed_tensors import CompressedTensors
from mmq_plugins.targets.gguf import Gguf

from mmq.allocation.allocation import BitAllocation
from mmq.allocation.parts import names
from mmq.contracts.report import LayerReport, QuantReport
from mmq.errors import InputError
from mmq.export.side_files import source_folder
from mmq.export.sizes import TargetSizes
from mmq.models.loading import locate
from mmq.models.skeleton import skeleton
from mmq.quantization.by_width import by_width

LLAVA = "embedded-llava"
SYMMETRIC = by_width(
    Rtn(symmetric=True), {bits: Rtn(group_size=32, symmetric=True) for bits in (4, 5)}
)


def sizes_of(target, granularity="component", bits=(3, 4, 16)):
    outline = skeleton(locate(LLAVA))
    widths = dict.fromkeys(names(outline.components, granularity), bits)
    folder = source_folder(LLAVA)
    return TargetSizes.of("t", target, SYMMETRIC, outline, folder, "float32", widths), widths


@pytest.mark.parametrize(
    ("target", "granularity", "tolerance"),
    [(Gguf(), "fine", 1e-9), (CompressedTensors(engine="vllm"), "type", 0.005)],
)
def test_bytes_are_a_sum_over_the_parts(target, granularity, tolerance):
    sizes, widths = sizes_of(target, granularity)
    rng = random.Random(0)
    for _ in range(2):
        choice = {part: rng.choice(own) for part, own in widths.items()}
        exact = sizes.exact(BitAllocation.of(choice))
        assert sizes.sums.at(choice) == pytest.approx(exact, rel=tolerance)


def report_of(sizes, allocation, more):
    """A report of layers that take as many bits as planned, the first one more."""
    layers = []
    for name, component in sizes.source.skeleton.components.items():
        for layer in component.layers:
            bits = allocation[name]
            stored = SYMMETRIC.stored_bits(layer.shape, bits) + (0 if layers else more)
            layers.append(
                LayerReport(layer.name, name, layer.block, layer.layer_type, layer.shape, bits,
                            stored_bits=stored)
            )  # fmt: skip
    return QuantReport(tuple(layers))


def test_a_layer_with_float32_scales_counts_its_written_bytes():
    sizes, _ = sizes_of(Gguf())
    allocation = BitAllocation.parse("vit=4 llm=4")
    planned = sizes.exact(allocation)
    assert sizes.exact(allocation, report_of(sizes, allocation, more=0)) == planned
    rows, columns = next(iter(sizes.source.skeleton.components["vit"].layers)).shape
    wider = sizes.exact(allocation, report_of(sizes, allocation, more=8))
    assert wider - planned == rows * columns * (32 - 4.5) / 8  # ggml has no such type but F32


def test_a_layer_that_an_engine_would_round_is_refused():
    sizes, _ = sizes_of(CompressedTensors(engine="vllm"))
    allocation = BitAllocation.parse("vit=4 llm=4")
    with pytest.raises(InputError, match="rounds scales to 16 bits"):
        sizes.exact(allocation, report_of(sizes, allocation, more=8))
