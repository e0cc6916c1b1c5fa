"""The table to analyze: bits, score and samples of each configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mmq.allocation.allocation import UNQUANTIZED
from mmq.analysis.joint import Combine, shares_of
from mmq.errors import InputError, unknown

LOSS_FLOOR = 0.01  # share of the reference's score; smaller losses count as this much


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Configurations of one study with their scores; higher is better.

    bits: (n, parts). scores: (n,). samples: (n, m), one value per sample whose mean is the
    score up to a factor, or None. pictures: (m,), samples of one picture have the same number.
    notes: what was dropped or averaged, one sentence each. tasks: of a combined score, the same
    configurations with the samples of each task. combine: how their shares are combined.
    """

    name: str
    parts: tuple[str, ...]
    bits: np.ndarray
    scores: np.ndarray
    samples: np.ndarray | None = None
    pictures: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    tasks: tuple["Table", ...] = ()
    combine: Combine = "worst"

    @property
    def has_samples(self) -> bool:
        """Whether scores on other pictures can be drawn."""
        return self.samples is not None or bool(self.tasks)

    @property
    def n(self) -> int:
        """How many configurations there are."""
        return len(self.scores)

    @property
    def varying(self) -> tuple[str, ...]:
        """Parts with more than one width."""
        moving = (self.bits != self.bits[:1]).any(axis=0)
        return tuple(part for part, moves in zip(self.parts, moving, strict=True) if moves)

    def noting(self, *notes: str) -> "Table":
        """The same table with more notes."""
        return replace(self, notes=(*self.notes, *notes))

    def row(self, bits: Sequence[int]) -> int | None:
        """Index of the row with these bits; None if there is none."""
        rows = np.flatnonzero((self.bits == np.asarray(bits)).all(axis=1))
        return int(rows[0]) if len(rows) else None

    def select(self, rows: np.ndarray, parts: Sequence[str] | None = None) -> "Table":
        """These rows (and parts, in their order) as a table."""
        parts = self.parts if parts is None else tuple(parts)
        columns = [self.parts.index(part) for part in parts]
        samples = None if self.samples is None else self.samples[rows]
        bits = self.bits[rows][:, columns]
        own = replace(
            self, parts=parts, bits=bits, scores=self.scores[rows], samples=samples, tasks=()
        )
        tasks = [task.select(rows, parts) for task in self.tasks]
        return own.with_tasks(tasks, self.combine) if tasks else own

    def with_tasks(self, tasks: Sequence["Table"], combine: Combine) -> "Table":
        """The table with the samples of each task, or with a note why there are none."""
        same = all(
            task.parts == self.parts and np.array_equal(task.bits, self.bits) for task in tasks
        )
        if not same or any(task.samples is None for task in tasks):
            problem = "not all trials have scores per sample of every task"
        elif self.unquantized is None:
            problem = "the unquantized model, which shares refer to, is not among the trials"
        else:
            return replace(self, tasks=tuple(tasks), combine=combine)
        return self.noting(f"uncertainty from samples is left out: {problem}")

    @property
    def unquantized(self) -> int | None:
        """Index of the row with every part at 16 bits; None if it was not measured."""
        return self.row([UNQUANTIZED] * len(self.parts))


def make_table(
    frame: Any,
    bits: Mapping[str, str],
    score: str = "score",
    name: str = "",
    samples: Any = None,
    pictures: Sequence[str] | None = None,
) -> Table:
    """A table from a pandas DataFrame; bits: its columns by part.

    Rows without a finite score and bits are dropped and rows of the same configuration are
    averaged; notes have the counts. samples, pictures: as in `Table`, samples in the frame's
    order. InputError for a missing column, or if no row is left.
    """
    for column in (*bits.values(), score):
        if column not in frame.columns:
            raise unknown("column", column, map(str, frame.columns))
    if not bits:
        raise InputError("bits: no part given; write them like vit=vit_bits,llm=llm_bits")
    import pandas

    columns = [*bits.values(), score]
    numbers = frame[columns].apply(pandas.to_numeric, errors="coerce").to_numpy(dtype=float)
    valid = np.isfinite(numbers).all(axis=1)
    notes = []
    if dropped := int((~valid).sum()):
        notes.append(f"{dropped} of {len(valid)} rows dropped: no finite score or bits")
    if not valid.any():
        raise InputError(f"{name or 'table'}: none of its {len(valid)} rows has bits and a score")
    values = None if samples is None else np.asarray(samples, dtype=float)[valid]
    if values is not None and not np.isfinite(values).all():
        values = None
        notes.append("values per sample omitted: some are not finite numbers")
    configurations, groups = np.unique(numbers[valid, :-1], axis=0, return_inverse=True)
    groups = groups.reshape(-1)
    if repeated := int(valid.sum()) - len(configurations):
        notes.append(f"{repeated} rows repeat a configuration: their scores are averaged")
    table = Table(
        name=name,
        parts=tuple(bits),
        bits=configurations,
        scores=_averaged(numbers[valid, -1:], groups)[:, 0],
        samples=None if values is None else _averaged(values, groups),
        notes=tuple(notes),
    )
    return _with_pictures(table, pictures)


def _averaged(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Means of the rows (n, k) of each group."""
    sums = np.zeros((groups.max() + 1, values.shape[1]))
    np.add.at(sums, groups, values)
    result: np.ndarray = sums / np.bincount(groups)[:, None]
    return result


def _with_pictures(table: Table, pictures: Sequence[str] | None) -> Table:
    """Pictures as numbers; samples are omitted, with a note, unless the score is their mean."""
    if table.samples is None:
        return table
    means = table.samples.mean(axis=1)
    scale = float(means @ table.scores) / max(float(means @ means), 1e-300)
    if not np.allclose(means * scale, table.scores, rtol=1e-3, atol=1e-3 * np.ptp(table.scores)):
        note = "values per sample omitted: the score is not their mean"
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
    """The row with every part at its widest; None if it was not measured."""
    return table.row(table.bits.max(axis=0)) if table.n else None


def log_loss(scores: np.ndarray, reference: int | None) -> np.ndarray:
    """log10 of the relative loss against the reference, floored at 1% of the reference's score.

    y = log10(max((s_ref - s) / |s_ref|, 0.01)): 0 if the score is lost, -2 if at most 1% of it is
    lost or it increases. s_ref is the score of the row `reference` (every part at its widest), or
    the best score if there is no such row. Losses below the floor are mostly evaluation noise, and
    their logarithms would be the largest differences. If the reference scores 0, the range of the
    scores is the unit of loss.
    """
    best = float(scores.max() if reference is None else scores[reference])
    unit = abs(best) or float(np.ptp(scores)) or 1.0
    result: np.ndarray = np.log10(np.maximum((best - scores) / unit, LOSS_FLOOR))
    return result


def resampled_scores(table: Table, rng: np.random.Generator) -> np.ndarray:
    """Scores (n,) on pictures drawn with replacement, the same for all configurations.

    Of several tasks, every task's pictures are drawn anew, and their shares are combined.
    """
    if table.tasks:
        row = table.unquantized
        by_task = [resampled_scores(task, rng) for task in table.tasks]
        shares = np.stack([shares_of(scores, scores[row]) for scores in by_task])
        joint: np.ndarray = shares.min(axis=0) if table.combine == "worst" else shares.mean(axis=0)
        return joint
    assert table.samples is not None
    assert table.pictures is not None
    pictures = int(table.pictures.max()) + 1
    counts = np.bincount(rng.integers(0, pictures, pictures), minlength=pictures)
    weights = counts[table.pictures].astype(float)
    result: np.ndarray = table.samples @ weights / weights.sum()
    return result
