"""How much a model's decisions change when a single part of it is quantized.

Cheaper than a trial: a few pairs are read once and nothing is generated. Less noisy than a score
on as few samples: every token of a correct answer yields a full distribution.
"""

import logging
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmq.allocation.allocation import UNQUANTIZED, BitAllocation
from mmq.allocation.parts import finest
from mmq.artifacts.artifacts import Artifacts
from mmq.data.calibration import Calibration
from mmq.errors import InputError
from mmq.models.loading import LoadedModel
from mmq.prepare import Prepared
from mmq.system import sealed
from mmq.system.hashing import digest
from mmq.system.home import home
from mmq.system.progress import progress_bar

log = logging.getLogger(__name__)
PAIRS = 64
VERSION = 1  # raise it with every change that gives other losses
Profile = dict[str, dict[int, float]]  # part -> width -> loss, not negative, 0 at 16 bits


def profile(
    model: LoadedModel,
    prepared: Prepared,
    artifacts: Artifacts,
    widths: Mapping[str, Sequence[int]],
) -> Profile:
    """The loss of every part alone at each of its widths; cached on disk: measured once.

    widths: by part.

    The loss is the Kullback-Leibler divergence, in nats per decision, of the quantized model from
    the unquantized one: of the next token along correct answers, or of what a retrieval model
    ranks. It is measured on calibration pairs: none of them is evaluated. Where there are none,
    or a family does not say what its models decide, the loss is the squared error of the part's
    layers, weighted by their size.

    A part at fewer bits never counts as less of a loss than at more: that would be noise.
    """
    eval_spec = prepared.eval_spec
    tried = [sorted(own) for own in widths.values()]
    shared = tried[0] if all(own == tried[0] for own in tried) else tried
    key = [eval_spec.key, eval_spec.calibration, list(widths), shared, VERSION]
    path = home() / "profiles" / f"{digest(key)}.json"
    if (cached := sealed.read_json(path)) is not None:
        return {
            part: {int(bits): float(loss) for bits, loss in row.items()}
            for part, row in cached.items()
        }
    try:
        measured = _divergences(model, artifacts, _few(prepared.pairs().with_pictures()), widths)
    except InputError as error:
        log.warning("sensitivity: %s; using the layers' own errors instead", error)
        measured = _layer_errors(model, artifacts, widths)
    losses = {part: _monotone(row) for part, row in measured.items()}
    sealed.write_json(path, losses)
    return losses


def _few(pairs: Calibration) -> Calibration:
    """PAIRS of the pairs, evenly spaced."""
    step = max(1, len(pairs.pairs) // PAIRS)
    return Calibration(pairs.pairs[::step][:PAIRS])


def _monotone(losses: Mapping[int, float]) -> dict[int, float]:
    """Losses by ascending width, none below that of a larger width."""
    result, floor = {}, 0.0
    for bits in sorted(losses, reverse=True):
        floor = result[bits] = max(floor, losses[bits])
    return dict(sorted(result.items()))


def _divergences(
    model: LoadedModel,
    artifacts: Artifacts,
    calibration: Calibration,
    widths: Mapping[str, Sequence[int]],
) -> Profile:
    reference = _decisions(model, calibration)
    losses: Profile = {part: {} for part in widths}
    total = sum(map(len, widths.values()))
    with progress_bar(total=total, desc="sensitivity", leave=False, quiet=artifacts.quiet) as bar:
        for part, own in widths.items():
            for bits in own:
                if bits == UNQUANTIZED:
                    losses[part][bits] = 0.0
                else:
                    allocation = BitAllocation.of({part: bits}).over(model.components)
                    try:
                        artifacts.write_(model, allocation)
                        losses[part][bits] = divergence(reference, _decisions(model, calibration))
                    finally:
                        model.restore_()
                bar.update()
    return losses


def _decisions(model: LoadedModel, calibration: Calibration) -> list[Tensor]:
    """Log-probabilities of all that the model decides for these pairs; InputError without any."""
    outputs = [forward() for forward in calibration.forwards(model, padded=True)]
    decisions = [output.cpu() for output in outputs if output is not None]
    if not decisions:
        raise InputError(
            f"{type(model.family).__name__} models define no decisions"
            if outputs
            else "there are no calibration pairs"
        )
    return decisions


def divergence(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Mean Kullback-Leibler divergence in nats of log-probabilities (rows, choices) each.

    Rows with NaN count as uniform distributions, in which every choice is equally likely.
    """
    losses = []
    for old, new in zip(before, after, strict=True):
        lost = torch.isnan(new).any(-1, keepdim=True)
        new = torch.where(lost, -math.log(new.shape[-1]), new)
        # a choice of probability 0 has no weight, however far it moves
        losses.append(torch.where(old.exp() > 0, old.exp() * (old - new), 0.0).sum(-1))
    return max(float(torch.cat(losses).double().mean()), 0.0)


def _layer_errors(
    model: LoadedModel, artifacts: Artifacts, widths: Mapping[str, Sequence[int]]
) -> Profile:
    """Squared errors of the layers, of their outputs where known, weighted by their weights."""
    errors: Profile = {part: dict.fromkeys(own, 0.0) for part, own in widths.items()}
    total = sum(component.weights for component in model.components.values())
    for name, component in model.components.items():
        own = {part: bits for part, bits in widths.items() if part.split(".")[0] == name}
        narrow = {bits for tried in own.values() for bits in tried} - {UNQUANTIZED}
        artifacts.fill(model, name, sorted(narrow))
        layers = {layer.name: component.part(layer) for layer in component.layers}
        for part, tried in own.items():
            inside = set(finest(part, model.components))
            for bits in sorted(set(tried) - {UNQUANTIZED}):
                for report in artifacts.reports(model, name, bits):
                    error = report.output_error or report.relative_error or 0.0
                    if layers[report.name] in inside:
                        share = report.shape[0] * report.shape[1] / total
                        errors[part][bits] += share * error**2
    return errors
