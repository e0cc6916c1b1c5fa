"""Checks that a loaded model can be calibrated, on one sample, before a study begins."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

import torch

from mmq.artifacts.artifacts import Artifacts
from mmq.artifacts.component_blocks import component_blocks
from mmq.contracts.quantizer import CalibratedQuantizer
from mmq.data.calibration import Calibration
from mmq.errors import InputError
from mmq.models.loading import LoadedModel
from mmq.quantization.block_inputs import check_experts, listening
from mmq.quantization.blocks import Block, Call, advance_
from mmq.quantization.capture import capture
from mmq.quantization.sequential import initial_states


def check_calibration(model: LoadedModel, artifacts: Artifacts) -> None:
    """InputError for a component that the quantizer cannot be calibrated on; see `capture`."""
    if artifacts.calibration is None:
        return
    check_longest_text(model, artifacts.calibration)
    forwards = partial(artifacts.calibration.forwards, model)
    for name, component in model.components.items():
        if component.per_row or not artifacts.widths.get(name):
            continue
        for blocks in component_blocks(model, component):
            calls = capture(blocks, lambda: islice(forwards(), 1))
            assert isinstance(artifacts.quantizer, CalibratedQuantizer)
            initial_states(calls, artifacts.quantizer, [], blocks)
            _check_first_experts(blocks, calls)


@torch.no_grad()
def check_longest_text(model: LoadedModel, calibration: Calibration) -> None:
    """InputError if the model cannot read the longest of the texts without pictures, if any."""
    texts = [pair for pair in calibration.pairs if not pair[0].images]
    if not texts:
        return
    longest = max(texts, key=lambda pair: len(pair[0].prompt))
    try:
        for forward in replace(calibration, pairs=(longest,)).forwards(model):
            forward()
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise InputError(
            f"calibration_data: the model cannot read a text of {len(longest[0].prompt)} "
            f"characters without a picture ({error}); name data with pictures, or shorter texts"
        ) from error


@torch.no_grad()
def _check_first_experts(blocks: Sequence[Block], calls: Sequence[Call]) -> None:
    """Check the first block with experts; all others are of the same class."""
    if not any(matrix.expert is not None for b in blocks for matrix in b.layers.values()):
        return
    for number, block in enumerate(blocks):
        if any(matrix.expert is not None for matrix in block.layers.values()):
            for call in calls:
                with listening(block.layers) as inputs_read:
                    call.through(block, number)
                check_experts(block.layers, {name for name, _ in inputs_read})
            return
        advance_(block, calls, number)
