"""The table to analyze: per configuration the bits of its parts, its score and its samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mmq.errors import InputError, unknown

LOSS_FLOOR = 0.01  # of the reference's score: a smaller loss counts as this much


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Configurations of one study with their scores; higher is better.

    bits: (n, parts). scores: (n,). samples: (n, m), a value a sample whose mean is the score up to
    a factor, or None. pictures: (m,), samples of one picture share their number. notes: what was
    dropped or averaged on the way, a sentence each.
    """

    name: str
    parts: tuple[str, ...]
    bits: np.ndarray
    scores: np.ndarray
    samples: np.ndarray | None = None
    pictures: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """How many configurations there are."""
        return len(self.scores)

    @property
    def varying(self) -> tuple[str, ...]:
        """Parts that have more than one width."""
        moving = (self.bits != self.bits[:1]).any(axis=0)
        return tuple(part for part, moves in zip(self.parts, moving, strict=True) if moves)

    def noting(self, *notes: str) -> "Table":
        """The same table with more notes."""
        return replace(self, notes=(*self.notes, *notes))

    def row(self, bits: Sequence[int]) -> int | None:
        """Number of the row with these bits; None where there is none."""
        found = np.flatnonzero((self.bits == np.asarray(bits)).all(axis=1))
        return int(found[0]) if len(found) else None

    def select(self, rows: np.ndarray, parts: Sequence[str] | None = None) -> "Table":
        """These rows (and parts, in their order) as a table."""
        parts = self.parts if parts is None else tuple(parts)
        columns = [self.parts.index(part) for part in parts]
        samples = None if self.samples is None else self.samples[rows]
        bits = self.bits[rows][:, columns]
        return replace(self, parts=parts, bits=bits, scores=self.scores[rows], samples=samples)


def make_table(
    frame: Any,
    bits: Mapping[str, str],
    score: str = "score",
    name: str = "",
    samples: Any = None,
    pictures: Sequence[str] | None = None,
) -> Table:
    """A table from a pandas DataFrame; bits: its columns by part.

    Rows whose score or bits are no finite number are dropped, rows of the same configuration
    averaged; notes say how many. samples, pictures: as in `Table`, samples in the frame's order.
    InputError for a column that is not there, or where no row is left.
    """
    for column in (*bits.values(), score):
        if column not in frame.columns:
            raise unknown("column", column, map(str, frame.columns))
    if not bits:
        raise InputError("bits: no part given; write them like vit=vit_bits,llm=llm_bits")
    import pandas

    columns = [*bits.values(), score]
    numbers = frame[columns].apply(pandas.to_numeric, errors="coerce").to_numpy(dtype=float)
    known = np.isfinite(numbers).all(axis=1)
    notes = []
    if dropped := int((~known).sum()):
        notes.append(f"{dropped} of {len(known)} rows dropped: no finite score or bits")
    if not known.any():
        raise InputError(f"{name or 'table'}: none of its {len(known)} rows has bits and a score")
    values = None if samples is None else np.asarray(samples, dtype=float)[known]
    if values is not None and not np.isfinite(values).all():
        values = None
        notes.append("values of samples left out: some are no finite numbers")
    found, owner = np.unique(numbers[known, :-1], axis=0, return_inverse=True)
    owner = owner.reshape(-1)
    if repeated := int(known.sum()) - len(found):
        notes.append(f"{repeated} rows repeat a configuration: their scores are averaged")
    table = Table(
        name=name,
        parts=tuple(bits),
        bits=found,
        scores=_averaged(numbers[known, -1:], owner)[:, 0],
        samples=None if values is None else _averaged(values, owner),
        notes=tuple(notes),
    )
    return _with_pictures(table, pictures)


def _averaged(values: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Means of the rows (n, k) with the same owner."""
    sums = np.zeros((owner.max() + 1, values.shape[1]))
    np.add.at(sums, owner, values)
    result: np.ndarray = sums / np.bincount(owner)[:, None]
    return result


def _with_pictures(table: Table, pictures: Sequence[str] | None) -> Table:
    """Pictures as numbers; samples that the score is no mean of are left out, with a note."""
    if table.samples is None:
        return table
    means = table.samples.mean(axis=1)
    scale = float(means @ table.scores) / max(float(means @ means), 1e-300)
    if not np.allclose(means * scale, table.scores, rtol=1e-3, atol=1e-3 * np.ptp(table.scores)):
        note = "values of samples left out: the score is not their mean"
        return replace(table, samples=None, notes=(*table.notes, note))
    count = table.samples.shape[1]
    if pictures is None:
        number = np.arange(count)
    else:
        if len(pictures) != count:
            raise InputError(f"pictures: {len(pictures)} names for {count} samples")
        number = np.unique(np.asarray(pictures), return_inverse=True)[1]
    return replace(table, samples=table.samples * scale, pictures=number)


def reference_row(table: Table) -> int | None:
    """The row with every part at its widest; None where it was not measured."""
    return table.row(table.bits.max(axis=0)) if table.n else None


def log_loss(scores: np.ndarray, reference: int | None) -> np.ndarray:
    """log10 of the relative loss against the reference, floored at 1% of the reference's score.

    y = log10(max((s_ref - s) / |s_ref|, 0.01)): 0 where the score is lost, -2 where at most 1% of
    it is, and where it grew. s_ref is the score of the row `reference` (every part at its widest),
    or the best score where that one is missing. Losses below the floor are mostly evaluation
    noise; without it their logarithms would be the largest differences of all. A reference that
    scores 0 is replaced by the range of the scores as the unit of loss.
    """
    best = float(scores.max() if reference is None else scores[reference])
    unit = abs(best) or float(np.ptp(scores)) or 1.0
    result: np.ndarray = np.log10(np.maximum((best - scores) / unit, LOSS_FLOOR))
    return result


def resampled_scores(table: Table, rng: np.random.Generator) -> np.ndarray:
    """Scores (n,) on pictures drawn with replacement, the same for all configurations."""
    assert table.samples is not None
    assert table.pictures is not None
    pictures = int(table.pictures.max()) + 1
    drawn = np.bincount(rng.integers(0, pictures, pictures), minlength=pictures)
    weights = drawn[table.pictures].astype(float)
    result: np.ndarray = table.samples @ weights / weights.sum()
    return result
