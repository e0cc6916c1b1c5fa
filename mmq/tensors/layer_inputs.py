"""What a layer read during calibration: sums over all of its inputs, in bounded memory.

GPTQ and AWQ both judge a weight by its effect on the layer's outputs. For inputs X (tokens, in)
and a changed weight W + D the squared error of the outputs is trace(D X^T X D^T): the Gram matrix
X^T X is all that must be stored of the inputs, however many there are.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

STRIP = 512  # columns of the Gram matrix updated at once, in its upper triangle only
ROWS = 1024  # rows of a weight whose output errors are computed at once


class LayerInputs:
    """Sums over the inputs of layers that read the same tensor.

    gram: (in, in), sum of x x^T. magnitude: (in,), mean of |x|. count: number of inputs (tokens).
    dropped: inputs left out because they were not finite. rows: up to `max_rows` of the inputs,
    sampled uniformly from all so far (a seeded reservoir). All are float32 on the inputs' device.
    foldable: scales of these inputs can be folded into what precedes them, if they are powers of
    two that all weights share. fold_limits: the largest exponents (in,) by width, where limited.
    """

    def __init__(
        self, features: int, device: str | torch.device = "cpu", max_rows: int = 0, seed: int = 0
    ) -> None:
        self.features, self.max_rows = features, max_rows
        self.count = self.dropped = self._row_count = 0
        self._gram = torch.zeros(features, features, device=device)
        self._absolute = torch.zeros(features, device=device)
        self._rows = torch.zeros(max_rows, features, device=device)
        self._generator = torch.Generator().manual_seed(seed)
        self._mirrored = True
        self.foldable = False
        self.fold_limits: dict[int, Tensor] = {}

    @torch.no_grad()
    def update_(self, inputs: Tensor) -> None:
        """Add inputs (..., in) of any float dtype."""
        x = inputs.detach().reshape(-1, self.features).float()
        if not torch.isfinite(x.sum()):  # a sum is cheap; find the inputs only if it is not finite
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
        """Sample uniformly from the inputs so far (reservoir sampling)."""
        if not self.max_rows:
            return
        number = torch.arange(self.count, self.count + len(x))
        place = (torch.rand(len(x), generator=self._generator) * (number + 1)).long()
        place = torch.where(number < self.max_rows, number, place)
        accepted = (place < self.max_rows).nonzero()[:, 0]
        last = dict(
            zip(place[accepted].tolist(), accepted.tolist(), strict=True)
        )  # the last one wins
        if last:
            self._rows[list(last.keys())] = x[list(last.values())]
        self._row_count = min(self.max_rows, self.count + len(x))

    def add_(self, other: "LayerInputs") -> None:
        """Add the sums and rows of another one."""
        self._gram = self.gram + other.gram
        self._absolute += other._absolute
        self._rows[self._row_count : self._row_count + other._row_count] = other.rows
        self._row_count += other._row_count
        self.count += other.count
        self.dropped += other.dropped

    @property
    def gram(self) -> Tensor:
        """Sum of x x^T, (in, in)."""
        if not self._mirrored:
            for start in range(0, self.features, STRIP):  # copying it all would double the peak
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
        """Some of the inputs, (at most max_rows, in)."""
        return self._rows[: self._row_count]


def merged(parts: Sequence[LayerInputs]) -> LayerInputs:
    """The sums over several parts, as if all inputs had come in one."""
    if len(parts) == 1:
        return parts[0]
    total = LayerInputs(parts[0].features, parts[0].gram.device, sum(p.max_rows for p in parts))
    for part in parts:
        total.add_(part)
    return total


def output_square(weight: Tensor, gram: Tensor) -> float:
    """|X W^T|_F^2 over the calibration inputs, some rows at a time: W may be large in float32."""
    total = 0.0
    for rows in torch.split(weight, ROWS):
        part = rows.float()
        total += float((part @ gram).mul_(part).sum(dtype=torch.float64))
    return total


def output_error(
    weight: Tensor, approximation: Tensor, gram: Tensor, square: float | None = None
) -> float:
    """|X (W - Q)^T|_F / |X W^T|_F over the calibration inputs; 0 where both are zero.

    square: output_square of the weight, if already computed; it is the same for every Q.
    """
    square = output_square(weight, gram) if square is None else square
    pairs = zip(torch.split(weight, ROWS), torch.split(approximation, ROWS), strict=True)
    parts = (output_square(near.float() - rows.float(), gram) for rows, near in pairs)
    error = max(sum(parts), 0.0)
    return (error / square) ** 0.5 if square > 0 else 0.0
