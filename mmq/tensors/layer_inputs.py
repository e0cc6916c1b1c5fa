"""What a layer read during calibration: sums over all of its inputs, in memory that is bounded.

Both GPTQ and AWQ judge a weight by what it does to the layer's outputs. For inputs X (tokens, in)
and a changed weight W + D the squared error of the outputs is trace(D X^T X D^T): the Gram matrix
X^T X is all that has to be kept of the inputs, however many there are.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

STRIP = 512  # columns of the Gram matrix added to at once; only its upper triangle is
ROWS = 1024  # of a weight whose outputs are weighed at once


class LayerInputs:
    """Sums over the inputs of layers that read the same tensor.

    gram: (in, in), sum of x x^T. magnitude: (in,), mean of |x|. count: number of inputs (tokens).
    dropped: inputs left out because they were not finite. rows: up to `keep` of the inputs, drawn
    evenly from all that came (a seeded reservoir). All are float32 on the inputs' device.
    foldable: a scale of powers of two that all readers share can be folded into what precedes.
    """

    foldable = False

    def __init__(
        self, features: int, device: str | torch.device = "cpu", keep: int = 0, seed: int = 0
    ) -> None:
        self.features, self.keep = features, keep
        self.count = self.dropped = self._kept = 0
        self._gram = torch.zeros(features, features, device=device)
        self._absolute = torch.zeros(features, device=device)
        self._rows = torch.zeros(keep, features, device=device)
        self._generator = torch.Generator().manual_seed(seed)
        self._mirrored = True

    @torch.no_grad()
    def update_(self, inputs: Tensor) -> None:
        """Add inputs (..., in) of any float dtype."""
        x = inputs.detach().reshape(-1, self.features).float()
        if not torch.isfinite(x.sum()):  # a sum is cheap; which inputs they are is looked up then
            usable = torch.isfinite(x).all(-1)
            self.dropped += int((~usable).sum())
            x = x[usable]
        if not len(x):
            return
        for start in range(0, self.features, STRIP):
            strip = slice(start, start + STRIP)
            self._gram[strip, start:].addmm_(x[:, strip].T, x[:, start:])
        self._mirrored = False
        self._absolute += x.abs().sum(0)
        self._sample_(x)
        self.count += len(x)

    def _sample_(self, x: Tensor) -> None:
        """Keep each of the inputs so far with the same probability."""
        if not self.keep:
            return
        number = torch.arange(self.count, self.count + len(x))
        place = (torch.rand(len(x), generator=self._generator) * (number + 1)).long()
        place = torch.where(number < self.keep, number, place)
        taken = (place < self.keep).nonzero()[:, 0]
        last = dict(zip(place[taken].tolist(), taken.tolist(), strict=True))  # the last one stays
        if last:
            self._rows[list(last.keys())] = x[list(last.values())]
        self._kept = min(self.keep, self.count + len(x))

    def add_(self, other: "LayerInputs") -> None:
        """Add what another one has seen."""
        self._gram = self.gram + other.gram
        self._absolute += other._absolute
        self._rows[self._kept : self._kept + other._kept] = other.rows
        self._kept += other._kept
        self.count += other.count
        self.dropped += other.dropped

    @property
    def gram(self) -> Tensor:
        """Sum of x x^T, (in, in)."""
        if not self._mirrored:
            for start in range(0, self.features, STRIP):  # whole copies would double the peak
                stop = start + STRIP
                square = self._gram[start:stop, start:stop]
                upper = torch.triu(square)
                square.copy_(upper + torch.triu(upper, 1).T)
                self._gram[stop:, start:stop] = self._gram[start:stop, stop:].T
            self._mirrored = True
        return self._gram

    @property
    def magnitude(self) -> Tensor:
        """Mean of |x|, (in,)."""
        return self._absolute / max(self.count, 1)

    @property
    def rows(self) -> Tensor:
        """Some of the inputs, (at most keep, in)."""
        return self._rows[: self._kept]


def merged(parts: Sequence[LayerInputs]) -> LayerInputs:
    """Inputs that came in several parts, as if they had come in one."""
    if len(parts) == 1:
        return parts[0]
    whole = LayerInputs(parts[0].features, parts[0].gram.device, sum(p.keep for p in parts))
    for part in parts:
        whole.add_(part)
    return whole


def output_square(weight: Tensor, gram: Tensor) -> float:
    """|X W^T|_F^2 over the calibration inputs, some rows at a time: in float32 W may be large."""
    total = 0.0
    for rows in torch.split(weight, ROWS):
        part = rows.float()
        total += float((part @ gram).mul_(part).sum(dtype=torch.float64))
    return total


def output_error(
    weight: Tensor, approximation: Tensor, gram: Tensor, whole: float | None = None
) -> float:
    """|X (W - Q)^T|_F / |X W^T|_F over the calibration inputs; 0 where both are zero.

    whole: output_square of the weight, where it is known; it is the same for every Q.
    """
    whole = output_square(weight, gram) if whole is None else whole
    pairs = zip(torch.split(weight, ROWS), torch.split(approximation, ROWS), strict=True)
    parts = (output_square(near.float() - rows.float(), gram) for rows, near in pairs)
    lost = max(sum(parts), 0.0)
    return (lost / whole) ** 0.5 if whole > 0 else 0.0
