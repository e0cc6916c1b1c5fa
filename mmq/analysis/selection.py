"""Selections by a budget: the best under a size, the smallest with a score, and their chances."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmq.allocation.widths_list import brief_text
from mmq.analysis.budgets import Budget
from mmq.analysis.evidence import (
    UNSURE,
    PairedScores,
    PerSample,
    about,
    percent,
    pictures_to_detect,
)
from mmq.analysis.fronts import KEEP, SURE, Point, at_floor, baseline
from mmq.analysis.joint import JointSamples, JointScores

DEFAULT = Budget(max_drop=1 - KEEP, relative=True)


@dataclass(frozen=True, slots=True)
class Selection:
    """A criterion in words, the selected point (None: nothing fits), and its certainty.

    chance: that other pictures select the same point; None if unknown.
    """

    criterion: str
    point: Point | None
    sureness: str
    chance: float | None = None

    @property
    def sure(self) -> bool:
        """Whether the samples are enough to be sure."""
        return self.chance is not None and self.chance >= SURE

    @property
    def alias(self) -> str:
        """The criterion as a name, like best-under-4-bpw."""
        words = self.criterion.replace("%", " percent").replace(".", "-").replace("e+", "e")
        return re.sub(r"[^a-z0-9-]+", "-", words.lower()).strip("-")

    @property
    def headline(self) -> str:
        """The selection in one line, without how sure it is."""
        return self._line("none" if self.point is None else self.point.allocation)

    @property
    def caption(self) -> str:
        """The headline for a figure, where a long allocation takes fewer characters."""
        return self._line("none" if self.point is None else brief_text(self.point.allocation))

    def _line(self, name: str) -> str:
        if (point := self.point) is None:
            return f"{self.criterion}: {name}"
        text = f"{self.criterion}: {name} ({point.size_text}), {point.objective} {point.score:.4g}"
        return f"{text}, {point.binding} binds" if point.tasks else text

    @property
    def text(self) -> str:
        """The complete selection; the first line is self-contained."""
        return f"{self.headline}{'. ' if self.point is None else chr(10)}{self.sureness}"


def select(
    points: Sequence[Point],
    budget: Budget,
    parameters: int,
    per_sample: PerSample,
    clusters: Sequence[str],
    floor: float | None = None,
    joint: JointSamples | None = None,
) -> list[Selection]:
    """The best under the size, then the smallest with the score, for the bounds of the budget.

    Without any bound, the smallest within 1%. clusters: the picture of every sample. floor: the
    lowest possible score; a point that is not significantly above it is never selected. Chances
    are shares of paired resamples: all allocations are scored on the same drawn pictures.
    joint: of a study of several tasks, in place of per_sample and clusters.
    """
    if not budget.sized and not budget.scored:
        budget = replace(budget, max_drop=DEFAULT.max_drop, relative=True)
    fitting = [p for p in points if budget.fits(p, parameters) and budget.keeps_answers(p)]
    usable = [p for p in fitting if not at_floor(p, floor)]
    least, reference = budget.least_score(points), baseline(points)
    compared = [
        *fitting,
        *([reference] if reference is not None and reference not in fitting else []),
    ]
    if joint is not None and reference is not None:
        paired: PairedScores = JointScores.of_tasks(compared, reference.allocation, joint)
    else:
        paired = PairedScores.of(compared, per_sample, clusters)
    evidence = Evidence(reference, paired, budget)
    selections = []
    if budget.sized:
        criterion = f"best under {budget.size_text}"
        criterion += f" {budget.score_text}" if budget.scored else ""
        criterion += budget.flips_text
        enough = [p for p in usable if least is None or p.bounded_score >= least]
        best = max(enough, key=lambda p: (p.score, -p.size), default=None)
        if best is None or (budget.scored and least is None):
            selections.append(
                Selection(criterion, None, _nothing(fitting, points, floor, least, budget))
            )
        else:
            selections.append(Selection(criterion, best, *evidence.of_best(best, fitting)))
    if budget.scored:
        criterion = f"smallest {budget.score_text}"
        criterion += f" under {budget.size_text}" if budget.sized else ""
        criterion += budget.flips_text
        quantized = [p for p in usable if not p.is_unquantized]
        enough = [p for p in quantized if least is not None and p.bounded_score >= least]
        small = min(enough, key=lambda p: (p.size, -p.score), default=None)
        if small is None:
            selections.append(
                Selection(criterion, None, _nothing(fitting, points, floor, least, budget))
            )
        else:
            selections.append(Selection(criterion, small, *evidence.of_smallest(small, usable)))
    return selections


def _nothing(
    fitting: Sequence[Point],
    points: Sequence[Point],
    floor: float | None,
    least: float | None,
    budget: Budget,
) -> str:
    if budget.scored and least is None:
        return "The unquantized model was not evaluated."
    fitting = [p for p in fitting if not p.is_unquantized]
    if not fitting:
        detail = ""
        if points:
            smallest = min(points, key=lambda p: p.size)
            detail = f"; the smallest has {smallest.size_text}"
        return f"None of {len(points)} evaluated allocations fits{detail}."
    best = max(fitting, key=lambda p: p.score)
    text = f"Of {len(fitting)} evaluated allocations that fit, the best scores {best.score:.4g}"
    if at_floor(best, floor):
        text += f", which is not significantly above {floor:g}"
    return f"{text}: {best.allocation}."


@dataclass(frozen=True, slots=True)
class Evidence:
    """The samples' evidence for a selection. reference: the unquantized model's point."""

    reference: Point | None
    paired: PairedScores
    budget: Budget

    def of_best(self, point: Point, fitting: Sequence[Point]) -> tuple[str, float | None]:
        """How often the selected point is the best of these in resamples; text and chance."""
        equals = [p for p in fitting if p.score == point.score and p != point]
        names = {p.allocation for p in (point, *equals)}
        start = self.retained(point)
        text = _ties(equals)
        if len(fitting) == 1:
            return f"{start}Nothing else that fits was evaluated.", None
        by_size = sorted(fitting, key=lambda p: p.size)  # the smaller of two equals is better
        rivals = [p for p in by_size if self.paired.has(p)]
        if point not in rivals or len(rivals) == 1:
            best = f"It is the best of {len(fitting)} evaluated. " if not equals else f"{text} "
            return f"{start}{best}{UNSURE}", None
        table = np.array([self.paired.resampled[p.allocation] for p in rivals])
        wins = np.bincount(table.argmax(0), minlength=len(table)) / table.shape[1]
        shares = {p.allocation: float(w) for p, w in zip(rivals, wins, strict=True)}
        own = sum(shares.pop(name, 0.0) for name in names)
        scored = "" if len(rivals) == len(fitting) else " and have scores per sample"
        it = "one of them" if equals else "it"
        sentence = f"Of {len(rivals)} evaluated that fit{scored}, {it} is the best"
        sentence += f" in {own:.0%} of resamples"
        rival = max(shares, key=lambda name: shares[name], default=None)
        if rival is not None and shares[rival] > 0:
            sentence += f", {brief_text(rival)} in {shares[rival]:.0%}"
        parts = (text, f"{sentence}.", self.enough(point))
        return start + " ".join(part for part in parts if part), own

    def of_smallest(self, point: Point, fitting: Sequence[Point]) -> tuple[str, float | None]:
        """How certainly a point reaches the required score, and which does; text and chance."""
        equals = [p for p in fitting if (p.size, p.score) == (point.size, point.score)
                  and p != point]  # fmt: skip
        start = self.retained(point)
        if equals:
            start += f"Same size and score: {', '.join(p.allocation for p in equals)}. "
        if not self.paired.has(point):
            return f"{start}{UNSURE}", None
        criterion, (chance, varies) = self.budget.score_text, self.chance(point)
        if varies:
            text = f"It is {criterion} in {chance:.0%} of resamples"
        else:
            text = (
                f"{self.paired.fewest} pictures, none of them worse, show with {chance:.0%} "
                f"confidence that it is {criterion}"
            )
        if chance < SURE:
            sure = [p for p in fitting if not p.is_unquantized and self.paired.has(p)
                    and self.chance(p)[0] >= SURE]  # fmt: skip
            safe = min(sure, key=lambda p: p.size, default=None)
            text += f"; none of those evaluated reaches {SURE:.0%}" if safe is None else (
                f"; the smallest that reaches {SURE:.0%}: {safe.allocation} ({safe.size_text})"
            )  # fmt: skip
        return " ".join(part for part in (f"{start}{text}.", self.enough(point)) if part), chance

    def chance(self, point: Point) -> tuple[float, bool]:
        """The chance that a point reaches the required score; whether it comes from resamples.

        If no picture loses, no resample does: then it is the chance that so many pictures would
        have shown a loss if as large a share of all pictures lost as the bound allows.
        """
        chance = float((self.paired.bounded(point) >= self.least()).mean())
        if self._varies(point):
            return chance, True
        score, least = point.bounded_score, self.budget.least_of(self.reference)
        room = 1.0 if score <= 0 or least is None else min(1.0, max(0.0, 1 - least / score))
        most = 1 - (1 - room) ** self.paired.fewest
        return (most, False) if most < chance else (chance, True)

    def _varies(self, point: Point) -> bool:
        """Whether some picture scores below the requirement for all of them."""
        if self.budget.min_score is None:
            assert self.reference is not None
            return not self.paired.has(self.reference) or self.paired.lost(point, self.reference)
        means = self.paired.totals[point.allocation] / self.paired.sizes
        return bool((means < self.budget.min_score).any())

    def least(self) -> np.ndarray | float:
        """The required score, by resample if it depends on the unquantized score."""
        if self.budget.min_score is not None:
            return self.budget.min_score
        assert self.reference is not None
        scores = self.paired.resampled.get(self.reference.allocation)
        return self.budget.below(np.asarray(self.reference.score) if scores is None else scores)

    def retained(self, point: Point) -> str:
        """The share of the unquantized score, with its interval; "" if unknown."""
        if self.reference is None or point.is_unquantized:
            return ""
        if self.reference.score <= 0:
            return f"It scores {point.score - self.reference.score:+.3g} against unquantized. "
        share = point.score / self.reference.score
        text = f"{share:.1%} of the unquantized {point.kept}{' kept' if share <= 1 else ''}"
        if not self.paired.has(point, self.reference):
            return f"{text}. "
        interval = self.paired.share(point, self.reference)
        if interval is None:
            return f"{text}. "
        low, high = interval
        count = self.paired.pictures
        text += f" (95% interval {low:.1%} to {high:.1%}, {count} pictures, paired). "
        if not self.paired.lost(point, self.reference):
            new, old = (self.paired.totals[p.allocation] for p in (point, self.reference))
            changed = f"No picture's {point.kept} changed"
            none = changed if np.array_equal(new, old) else "No picture lost"
            text += f"{none}; of other pictures, up to {self.paired.hidden:.1%} may. "
        return text

    def enough(self, point: Point) -> str:
        """How many pictures would show a loss as large as the allowed one, or of 1%."""
        reference = self.reference
        if reference is None or reference.score <= 0 or point.is_unquantized:
            return ""
        if not self.paired.has(point, reference):
            return ""
        drop, words = self.budget.drop_share(reference.score) or (1 - KEEP, percent(1 - KEEP))
        loss = words if self.budget.of_flips else f"a loss of {words}"
        new, old = self.paired.pair(point, reference)
        count, there = pictures_to_detect(new, old, drop), len(new)
        task = f" of {point.binding}" if point.tasks else ""
        if count <= there:
            return f"{there} pictures{task} are enough to show {loss}."
        return f"About {about(count)} pictures{task} would show {loss}."


def _ties(equals: Sequence[Point]) -> str:
    """Which other fitting points, none smaller, score the same; "" if none does."""
    if len(equals) == 1:
        return f"1 other that fits scores the same and is not smaller: {equals[0].allocation}."
    return f"{len(equals)} others that fit score the same and are not smaller." if equals else ""
