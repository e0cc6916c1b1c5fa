"""The gain of a search over the best rule of thumb, with an interval that allows for the choice.

The best of many allocations scores too well on the samples that chose it. The gain is corrected by
the optimism of the choice, which resamples show: in each one the best allocation is chosen again,
and scored on all pictures (Efron 1983; Harrell 2015, section 5.3.4).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmq.allocation.widths_list import brief_text
from mmq.analysis.budgets import Budget
from mmq.analysis.evidence import PairedScores, PerSample
from mmq.analysis.fronts import KEEP, Point, at_floor, baseline
from mmq.analysis.joint import JointSamples, JointScores

DEFAULT = Budget(max_drop=1 - KEEP, relative=True)
WORTH = 0.01  # of a rule's size; saving less is not reported


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of two scores on the same pictures, with its 95% interval.

    name: of what is compared, such as "score".
    """

    score: float
    low: float
    high: float
    pictures: int
    name: str

    def __str__(self) -> str:
        return (
            f"{self.score:+.3g} of the {self.name} (95% interval {self.low:+.3g} to "
            f"{self.high:+.3g}, {self.pictures} pictures, paired)"
        )


@dataclass(frozen=True, slots=True)
class Gain:
    """The best evaluated model of at most the size of the best rule of thumb, against that rule.

    name: of the rule. rule, best: their points; the same one if the search found no better.
    terms: on which the two are compared. difference: of their scores, corrected for the choice;
    None without scores per sample. smallest: the smallest model with the score that the budget
    requires, None if it requires none or the rule does not have it. loss: of the smallest against
    the rule. next_rule: with a bound on the size, the smallest rule above it that scores as much
    as the best within it, or else the rule above it that scores best; next_name: its name.
    """

    name: str
    rule: Point
    best: Point
    terms: str
    difference: Difference | None = None
    smallest: Point | None = None
    loss: Difference | None = None
    next_rule: Point | None = None
    next_name: str = ""

    @property
    def is_certain(self) -> bool:
        """Whether other pictures would show a gain, too."""
        return self.difference is not None and self.difference.low > 0

    @property
    def saved(self) -> float:
        """The share of the rule's size that a model with the required score saves."""
        share = 0.0 if self.smallest is None else 1 - self.smallest.size / self.rule.size
        return share if share >= WORTH else 0.0

    @property
    def text(self) -> str:
        """The gain in a line, the larger one first: of the score, or of the size."""
        rule = f"the best rule of thumb, {self.name}"
        if not self.saved:
            sentences = [self._gained(rule)]
        elif self.is_certain:
            sentences = [self._gained(rule), self._also_saved()]
        else:
            sentences = [self._saved(rule), self._uncertain()]
        return " ".join(sentences if self.next_rule is None else [*sentences, self._next()])

    def _gained(self, rule: str) -> str:
        if self.best == self.rule:
            return (
                f"The search gained nothing over {rule}, {self.terms}: no evaluated allocation "
                f"scores better than the rule ({self.rule.compared_text}, {self.rule.objective} "
                f"{self.rule.score:.4g})."
            )
        scores = f"{_scores(self.best)}, the rule ({self.rule.compared_text}) "
        scores += f"{self.rule.score:.4g}."
        if self.difference is None:
            return (
                f"The search gained {self.best.score - self.rule.score:.3g} of the "
                f"{self.rule.objective} over {rule}, {self.terms}; without scores per sample, its "
                f"certainty is unknown: {scores}"
            )
        if self.is_certain:
            return f"The search gained {self.difference} over {rule}, {self.terms}: {scores}"
        return (
            f"The search gained nothing certain over {rule}, {self.terms}: {self.difference}; "
            f"{scores}"
        )

    def _saved(self, rule: str) -> str:
        assert self.smallest is not None
        difference = "" if self.loss is None else f": {self.loss}"
        return (
            f"The search saved {self.saved:.1%} of the {_unit(self.rule)} of {rule}, with the "
            f"required score: {_scores(self.smallest)}, the rule ({self.rule.compared_text}) "
            f"{self.rule.score:.4g}{difference}."
        )

    def _uncertain(self) -> str:
        terms = f"{self.terms[0].upper()}{self.terms[1:]} than the rule"
        if self.best == self.rule:
            return f"{terms}, no evaluated allocation scores better."
        if self.difference is None:
            return f"{terms}, {_scores(self.best)}; the certainty is unknown."
        return f"{terms}, it gained nothing certain: {self.difference}."

    def _also_saved(self) -> str:
        assert self.smallest is not None
        return (
            f"It also saved {self.saved:.1%} of the rule's {_unit(self.rule)}, with the required "
            f"score: {_scores(self.smallest)}."
        )

    def _next(self) -> str:
        assert self.next_rule is not None
        more = self.next_rule.size / self.best.size - 1
        return (
            f"The rule {self.next_name} takes {more:.1%} more {_unit(self.rule)} "
            f"({self.next_rule.compared_text}) and scores {self.next_rule.score:.4g}."
        )

    def to_json(self) -> dict[str, object]:
        """The gain as plain data, for JSON."""
        difference, next_rule = self.difference, self.next_rule
        return {
            "rule": self.name,
            "rule_allocation": self.rule.allocation,
            "best_allocation": self.best.allocation,
            "smallest_allocation": None if self.smallest is None else self.smallest.allocation,
            "gain": None if difference is None else difference.score,
            "low": None if difference is None else difference.low,
            "high": None if difference is None else difference.high,
            "certain": self.is_certain,
            "saved_share": self.saved,
            "next_rule": self.next_name or None,
            "next_rule_allocation": None if next_rule is None else next_rule.allocation,
        }


def _scores(point: Point) -> str:
    """What a point scores, with its size."""
    return f"{brief_text(point.allocation)} ({point.compared_text}) scores {point.score:.4g}"


def _unit(point: Point) -> str:
    """What a model takes less or more of, on the axis of a point."""
    if point.cost is not None:
        return "bytes" if point.cost.ms is None else "time"
    return "bytes" if point.unit == "stored bpw" else "bits"


def best_of_size(points: Sequence[Point], rule: Point) -> Point:
    """The best point that is not larger than a rule's; the rule itself if none is better."""
    rivals = [p for p in points if p.size <= rule.size and not p.is_unquantized]
    best = max(rivals, key=lambda p: (p.score, -p.size), default=rule)
    return best if best.score > rule.score else rule


def gain_over_rules(
    points: Sequence[Point],
    rules: Mapping[str, str],
    budget: Budget,
    parameters: int,
    per_sample: PerSample,
    clusters: Sequence[str],
    floor: float | None = None,
    joint: JointSamples | None = None,
) -> Gain | None:
    """The gain over the rule that one would have used for this budget; None if none is evaluated.

    rules: their names by allocation. joint: the samples of several tasks, in place of per_sample
    and clusters. With a bound on the size it is the rule that scores best
    within it. Otherwise it is the smallest with the required score, by default 99% of the
    unquantized one; if no rule has it, the best.
    """
    quantized = [p for p in points if not p.is_unquantized]  # which all are compared with
    fitting = [p for p in quantized if budget.fits(p, parameters)]
    candidates = [p for p in fitting if p.allocation in rules]  # a rule may score nothing
    if not candidates:
        return None
    scored = budget if budget.sized or budget.scored else DEFAULT
    least = scored.least_score(points)
    usable = [p for p in fitting if not at_floor(p, floor)]
    enough = [p for p in usable if least is not None and p.bounded_score >= least]
    enough_rules = [p for p in enough if p in candidates]
    by_score = max(candidates, key=lambda p: (p.score, -p.size))
    sized = budget.sized or not enough_rules
    rule = by_score if sized else min(enough_rules, key=lambda p: (p.size, -p.score))
    rivals = fitting if budget.sized else [p for p in fitting if p.size <= rule.size]
    best = max(rivals, key=lambda p: (p.score, -p.size))
    best = best if best.score > rule.score else rule
    smallest = None if sized else min(enough, key=lambda p: (p.size, -p.score))
    terms = f"within {budget.size_text}" if budget.sized else f"at no more {_unit(rule)}"
    gain = Gain(rules[rule.allocation], rule, best, terms, smallest=smallest)
    if budget.sized:
        beyond = [p for p in quantized if p.allocation in rules and p not in fitting]
        gain = _with_next(gain, beyond, rules)
    paired = _paired(rivals, baseline(points), per_sample, clusters, joint)
    if smallest is not None and smallest != rule and paired.has(smallest, rule):
        gain = replace(gain, loss=_difference(paired, smallest, rule))
    if best == rule or not paired.has(best, rule):
        return gain
    resampled = [p for p in rivals if paired.has(p)]
    return replace(gain, difference=_corrected(paired, resampled, best, rule))


def _paired(
    rivals: Sequence[Point],
    reference: Point | None,
    per_sample: PerSample,
    clusters: Sequence[str],
    joint: JointSamples | None,
) -> PairedScores:
    """The scores of points on the same samples, of one task or of several."""
    if joint is not None and reference is not None:
        return JointScores.of_tasks([*rivals, reference], reference.allocation, joint)
    return PairedScores.of(rivals, per_sample, clusters)


def _with_next(gain: Gain, beyond: Sequence[Point], rules: Mapping[str, str]) -> Gain:
    """With the rule above the bound that the best within it is compared with, if there is one."""
    if not beyond:
        return gain
    as_good = [p for p in beyond if p.score >= gain.best.score]
    by_score = max(beyond, key=lambda p: (p.score, -p.size))
    point = min(as_good, key=lambda p: (p.size, -p.score), default=by_score)
    return replace(gain, next_rule=point, next_name=rules[point.allocation])


def _difference(paired: PairedScores, new: Point, old: Point, shift: float = 0.0) -> Difference:
    """The difference of two scores. shift: is subtracted from it."""
    resampled = paired.resampled[new.allocation] - paired.resampled[old.allocation]
    low, high = np.percentile(resampled, [2.5, 97.5])
    score = new.score - old.score - shift
    return Difference(
        score, float(low) - shift, float(high) - shift, paired.pictures, new.objective
    )


def _corrected(
    paired: PairedScores, rivals: Sequence[Point], best: Point, rule: Point
) -> Difference:
    """The gain, without the optimism of having chosen the best of the rivals."""
    differences = np.array(
        [paired.resampled[p.allocation] - paired.resampled[rule.allocation] for p in rivals]
    )  # (rivals, resamples)
    apparent = np.array([p.score - rule.score for p in rivals])
    winners = differences.argmax(axis=0)  # (resamples,)
    optimism = float(np.mean(differences.max(axis=0) - apparent[winners]))
    return _difference(paired, best, rule, max(optimism, 0.0))
