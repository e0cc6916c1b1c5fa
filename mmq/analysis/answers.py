"""What a budget allows: the best under a size, the smallest with a score, and how sure that is."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmq.analysis.fronts import KEEP, Point, baseline
from mmq.errors import InputError
from mmq.stats import RESAMPLES

SURE = 0.95
UNSURE = "How sure that is, is not known: no score of every sample."
PerSample = Callable[[str], Sequence[float] | None]


@dataclass(frozen=True, slots=True)
class Budget:
    """What an answer has to keep to; None: nothing.

    max_gib: with everything that is stored, in GiB. max_drop: below the unquantized score, in the
    score's units, or as a share of it where `relative`.
    """

    max_bpw: float | None = None
    max_gib: float | None = None
    min_score: float | None = None
    max_drop: float | None = None
    relative: bool = False

    def __post_init__(self) -> None:
        if self.min_score is not None and self.max_drop is not None:
            raise InputError("min-score, max-drop: give one of them, not both")
        for name in ("max_bpw", "max_gib", "max_drop"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name.replace('_', '-')}: {value} is not above 0")

    @classmethod
    def parse(
        cls, max_bpw: str = "", max_gib: str = "", min_score: str = "", max_drop: str = ""
    ) -> "Budget":
        """From options as they are written, "" for none; a drop may be like 1% or 0.5."""
        percent = max_drop.endswith("%")
        drop = _number("max-drop", max_drop.removesuffix("%") if max_drop != "%" else max_drop)
        if percent and drop is not None and drop > 100:
            raise InputError(f"max-drop: {max_drop} is more than all of the score")
        return cls(
            _number("max-bpw", max_bpw),
            _number("max-size-gib", max_gib),
            _number("min-score", min_score),
            drop / 100 if drop is not None and percent else drop,
            percent,
        )

    @property
    def sized(self) -> bool:
        """Whether a size is bounded."""
        return self.max_bpw is not None or self.max_gib is not None

    @property
    def scored(self) -> bool:
        """Whether a score is asked for."""
        return self.min_score is not None or self.max_drop is not None

    def least_score(self, points: Sequence[Point]) -> float | None:
        """The score that is asked for; None where that is not known, or nothing is asked."""
        reference = baseline(points)
        if self.min_score is not None or self.max_drop is None or reference is None:
            return self.min_score
        return float(self.below(np.asarray(reference.score)))

    def below(self, reference: np.ndarray) -> np.ndarray:
        """The lowest scores that the drop from these allows."""
        assert self.max_drop is not None
        if not self.relative:
            return reference - self.max_drop
        return np.asarray(
            reference * np.where(reference > 0, 1 - self.max_drop, 1 + self.max_drop)
        )

    def fits(self, point: Point, parameters: int) -> bool:
        """Whether a point's size is within bounds; parameters: of the model."""
        gib = stored_gib(point, parameters)
        return (self.max_bpw is None or point.bpw <= self.max_bpw) and (
            self.max_gib is None or (gib is not None and gib <= self.max_gib)
        )

    @property
    def size_text(self) -> str:
        """The bounds of the size in words."""
        bpw = [] if self.max_bpw is None else [f"{self.max_bpw:g} bpw"]
        return " and ".join(bpw + ([] if self.max_gib is None else [f"{self.max_gib:g} GiB"]))

    @property
    def score_text(self) -> str:
        """What is asked of the score in words."""
        if self.min_score is not None:
            return f"with a score of {self.min_score:g}"
        assert self.max_drop is not None
        drop = f"{100 * self.max_drop:g}%" if self.relative else f"{self.max_drop:g} of the score"
        return f"within {drop}"


def stored_gib(point: Point, parameters: int) -> float | None:
    """A point's size in GiB with everything that is stored; parameters: of the model."""
    return None if point.stored_bpw is None else point.stored_bpw * parameters / 8 / 1024**3


def _number(name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        example = "1% or 0.5" if name == "max-drop" else "a number"
        raise InputError(f"{name}: {text!r} is not {example}")
    return number


@dataclass(frozen=True, slots=True)
class Answer:
    """A question in words, the point that answers it (None: none does), and how sure that is."""

    question: str
    point: Point | None
    sureness: str

    @property
    def alias(self) -> str:
        """The question as a name, like best-under-4-bpw."""
        words = self.question.replace("%", " percent").replace(".", "-").replace("e+", "e")
        return re.sub(r"[^a-z0-9-]+", "-", words.lower()).strip("-")

    @property
    def text(self) -> str:
        """The whole answer; the first line stands alone."""
        if self.point is None:
            return f"{self.question}: none. {self.sureness}"
        point = self.point
        stored = "" if point.stored_bpw is None else f", {point.stored_bpw:.3f} stored"
        return (
            f"{self.question}: {point.allocation} ({point.bpw:.3f} bpw{stored}), score "
            f"{point.score:.4g}\n{self.sureness}"
        )


def answers(
    points: Sequence[Point],
    budget: Budget,
    parameters: int,
    per_sample: PerSample,
    clusters: Sequence[str],
) -> list[Answer]:
    """The best under the size, then the smallest with the score, as far as they are asked.

    Where nothing is asked, the smallest within 1%. clusters: the picture of every sample. Chances
    are shares of paired resamples: all allocations are scored on the same drawn pictures.
    """
    if not budget.sized and not budget.scored:
        budget = Budget(max_drop=1 - KEEP, relative=True)
    fitting = [p for p in points if budget.fits(p, parameters)]
    least, reference = budget.least_score(points), baseline(points)
    known = [
        *fitting,
        *([reference] if reference is not None and reference not in fitting else []),
    ]
    evidence = Evidence(reference, resampled(known, per_sample, clusters), len(set(clusters)))
    found = []
    if budget.sized:
        enough = [p for p in fitting if least is None or p.score >= least]
        best = max(enough, key=lambda p: (p.score, -p.bpw), default=None)
        asked = f"best under {budget.size_text}"
        asked += f" {budget.score_text}" if budget.scored else ""
        sureness = evidence.of_best(best, fitting) if best else _nothing(fitting, points)
        found.append(Answer(asked, best, sureness))
    if budget.scored:
        asked = f"smallest {budget.score_text}"
        asked += f" under {budget.size_text}" if budget.sized else ""
        if least is None:
            return [*found, Answer(asked, None, "The unquantized model was not evaluated.")]
        enough = [p for p in fitting if not p.untouched and p.score >= least]
        small = min(enough, key=lambda p: (p.bpw, -p.score), default=None)
        sure = evidence.of_smallest(small, fitting, budget) if small else _nothing(fitting, points)
        found.append(Answer(asked, small, sure))
    return found


def _nothing(fitting: Sequence[Point], points: Sequence[Point]) -> str:
    fitting = [p for p in fitting if not p.untouched]
    if not fitting:
        least = min(points, key=lambda p: p.bpw, default=None)
        seen = "" if least is None else f"; the smallest has {least.bpw:.3f} bpw"
        return f"None of {len(points)} evaluated allocations fits{seen}."
    best = max(fitting, key=lambda p: p.score)
    return (
        f"Of {len(fitting)} evaluated allocations that fit the best scores {best.score:.4g}: "
        f"{best.allocation}."
    )


@dataclass(frozen=True, slots=True)
class Evidence:
    """How sure an answer is. scores: (resamples,) by allocation, of those that have any."""

    reference: Point | None
    scores: Mapping[str, np.ndarray]
    pictures: int

    def of_best(self, chosen: Point, fitting: Sequence[Point]) -> str:
        """How often the best of these is the best, and what else is."""
        by_size = sorted(fitting, key=lambda p: p.bpw)  # of equals the smaller one is better
        rivals = {p.allocation: self.scores[p.allocation] for p in by_size
                  if p.allocation in self.scores}  # fmt: skip
        if len(fitting) == 1:
            return f"{self.kept(chosen)}Nothing else that fits was evaluated."
        if chosen.allocation not in rivals or len(rivals) == 1:
            return f"{self.kept(chosen)}It is the best of {len(fitting)} evaluated. {UNSURE}"
        table = np.array(list(rivals.values()))
        wins = np.bincount(table.argmax(0), minlength=len(table)) / table.shape[1]
        shares = dict(zip(rivals, wins, strict=True))
        own = shares.pop(chosen.allocation)
        known = "" if len(rivals) == len(fitting) else " that have a score of every sample"
        text = f"Of {len(rivals)} evaluated{known} it is the best in {own:.0%} of resamples"
        rival = max(shares, key=lambda name: float(shares[name]), default=None)
        if rival is not None and shares[rival] > 0:
            text += f", {rival} in {shares[rival]:.0%}"
        return f"{self.kept(chosen)}{text}."

    def of_smallest(self, chosen: Point, fitting: Sequence[Point], budget: Budget) -> str:
        """How often it has the score that is asked for, and which surely has."""
        chances = {
            p.allocation: float((self.scores[p.allocation] >= self.least(budget)).mean())
            for p in fitting
            if p.allocation in self.scores and not p.untouched
        }
        if chosen.allocation not in chances:
            return f"{self.kept(chosen)}{UNSURE}"
        chance = chances[chosen.allocation]
        text = f"It is {budget.score_text} in {chance:.0%} of resamples"
        if chance < SURE:
            sure = [p for p in fitting if chances.get(p.allocation, 0) >= SURE]
            safe = min(sure, key=lambda p: p.bpw, default=None)
            text += f"; of those evaluated, none is in {SURE:.0%}" if safe is None else (
                f"; the smallest that is in {SURE:.0%}: {safe.allocation} ({safe.bpw:.3f} bpw)"
            )  # fmt: skip
        return f"{self.kept(chosen)}{text}."

    def least(self, budget: Budget) -> np.ndarray | float:
        """The score that is asked for, by resample where it depends on the unquantized one."""
        if budget.min_score is not None:
            return budget.min_score
        assert self.reference is not None
        scores = self.scores.get(self.reference.allocation)
        return budget.below(np.asarray(self.reference.score) if scores is None else scores)

    def kept(self, chosen: Point) -> str:
        """The share of the unquantized score that is kept, with its interval; "" if unknown."""
        if self.reference is None or self.reference.score <= 0 or chosen.untouched:
            return ""
        text = f"{chosen.score / self.reference.score:.1%} of the unquantized score kept"
        new, old = (self.scores.get(p.allocation) for p in (chosen, self.reference))
        if new is None or old is None:
            return f"{text}. "
        shares = new[old > 0] / old[old > 0]  # of nothing there is no share
        if not len(shares):
            return f"{text}. "
        low, high = np.percentile(shares, [2.5, 97.5])
        text += f" (95% interval {low:.1%} to {high:.1%}, {self.pictures} pictures, paired). "
        if np.array_equal(new, old):  # no resample can show a difference that no picture has
            most = 1 - (1 - SURE) ** (1 / self.pictures)  # so many would have shown one
            text += f"No picture's score changed; of other pictures up to {most:.1%} may. "
        return text


def resampled(
    points: Sequence[Point], per_sample: PerSample, clusters: Sequence[str], seed: int = 0
) -> dict[str, np.ndarray]:
    """Scores (resamples,) of each allocation on the same drawn pictures, in the score's units.

    Allocations without a value for every sample are left out; none is there where all samples
    belong to one picture.
    """
    _, index, sizes = np.unique(np.asarray(clusters), return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        return {}
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), RESAMPLES)
    found = {}
    for point in points:
        values = per_sample(point.allocation)
        if not values or len(values) != len(index):
            continue
        means = drawn @ np.bincount(index, weights=values) / (drawn @ sizes)
        scale = point.score / np.mean(values) if np.mean(values) else 1.0  # such as percent
        found[point.allocation] = means * scale
    return found
