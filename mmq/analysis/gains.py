"""The gain of a search over the best rule of thumb, with an interval that allows for the choice.

The best of many allocations scores too well on the samples that chose it. The gain is corrected by
the optimism of the choice, which resamples show: in each one the best allocation is chosen again,
and scored on all pictures (Efron 1983; Harrell 2015, section 5.3.4).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmq.analysis.budgets import Budget
from mmq.analysis.evidence import PairedScores, PerSample
from mmq.analysis.fronts import KEEP, Point, at_floor, baseline
from mmq.analysis.joint import JointSamples, JointScores

DEFAULT = Budget(max_drop=1 - KEEP, relative=True)


@dataclass(frozen=True, slots=True)
class Gain:
    """The best evaluated model of at most the size of the best rule of thumb, against that rule.

    name: of the rule. rule, best: their points; the same one if the search found no better.
    smallest: the smallest model that satisfies the bound on the score that the rule satisfies,
    None without one. terms: on which the two are compared. score: the gain, corrected for the
    choice; low, high: its 95% interval; all None without scores per sample. pictures: how many
    were resampled.
    """

    name: str
    rule: Point
    best: Point
    smallest: Point | None
    terms: str
    score: float | None = None
    low: float | None = None
    high: float | None = None
    pictures: int = 0

    @property
    def is_certain(self) -> bool:
        """Whether other pictures would show a gain, too."""
        return self.low is not None and self.low > 0

    @property
    def text(self) -> str:
        """The gain in one line."""
        saved, kept = self._saved(), self.rule.objective
        rule_text = f"the best rule of thumb, {self.name}"
        if self.best == self.rule:
            return (
                f"The search gained nothing over {rule_text} ({self.rule.compared_text}, {kept} "
                f"{self.rule.score:.4g}): nothing evaluated of its size scores better{saved}."
            )
        scores = (
            f"{self.best.allocation} ({self.best.compared_text}) scores {self.best.score:.4g}, "
            f"the rule ({self.rule.compared_text}) {self.rule.score:.4g}"
        )
        if self.score is None:
            return (
                f"The search gained {self.best.score - self.rule.score:.3g} of the {kept} over "
                f"{rule_text}, {self.terms}; how certain is unknown, without scores per sample: "
                f"{scores}{saved}."
            )
        interval = (
            f"{self.score:+.3g} of the {kept} (95% interval {self.low:+.3g} to {self.high:+.3g}, "
            f"{self.pictures} pictures, paired)"
        )
        if self.is_certain:
            return f"The search gained {interval} over {rule_text}, {self.terms}: {scores}{saved}."
        return (
            f"The search gained nothing certain over {rule_text}, {self.terms}: {interval}; "
            f"{scores}{saved}."
        )

    def _saved(self) -> str:
        """How much smaller a model with the required score is; "" if none is smaller."""
        if self.smallest is None or self.smallest.size >= self.rule.size:
            return ""
        share = 1 - self.smallest.size / self.rule.size
        return f"; {self.smallest.allocation} has the required score at {share:.1%} less"

    def to_json(self) -> dict[str, object]:
        """The gain as plain data, for JSON."""
        return {
            "rule": self.name,
            "rule_allocation": self.rule.allocation,
            "best_allocation": self.best.allocation,
            "smallest_allocation": None if self.smallest is None else self.smallest.allocation,
            "gain": self.score,
            "low": self.low,
            "high": self.high,
            "certain": self.is_certain,
        }


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
    fitting = [
        p for p in points if not p.is_unquantized and budget.fits(p, parameters)
    ]  # the unquantized model is what all are compared with
    candidates = [p for p in fitting if p.allocation in rules]  # a rule may score nothing
    if not candidates:
        return None
    scored = budget if budget.sized or budget.scored else DEFAULT
    least = scored.least_score(points)
    enough = [
        p
        for p in candidates
        if least is not None and p.bounded_score >= least and not at_floor(p, floor)
    ]
    by_score = max(candidates, key=lambda p: (p.score, -p.size))
    sized = budget.sized or not enough
    rule = by_score if sized else min(enough, key=lambda p: (p.size, -p.score))
    rivals = fitting if budget.sized else [p for p in fitting if p.size <= rule.size]
    best = max(rivals, key=lambda p: (p.score, -p.size))
    best = best if best.score > rule.score else rule
    usable = [p for p in fitting if not at_floor(p, floor)]
    smaller = [p for p in usable if least is not None and p.bounded_score >= least]
    smallest = None if sized else min(smaller, key=lambda p: (p.size, -p.score), default=None)
    terms = f"within {budget.size_text}" if budget.sized else "at no more bytes"
    gain = Gain(rules[rule.allocation], rule, best, smallest, terms)
    reference = baseline(points)
    if joint is not None and reference is not None:
        compared, name = [*rivals, reference], reference.allocation
        paired: PairedScores = JointScores.of_tasks(compared, name, joint)
    else:
        paired = PairedScores.of(rivals, per_sample, clusters)
    if best == rule or not paired.has(best, rule):
        return gain
    resampled = [p for p in rivals if paired.has(p)]
    score, low, high = _corrected(paired, resampled, best, rule)
    return replace(gain, score=score, low=low, high=high, pictures=paired.pictures)


def _corrected(
    paired: PairedScores, rivals: Sequence[Point], best: Point, rule: Point
) -> tuple[float, float, float]:
    """The gain and its interval, without the optimism of having chosen the best of the rivals."""
    differences = np.array(
        [paired.resampled[p.allocation] - paired.resampled[rule.allocation] for p in rivals]
    )  # (rivals, resamples)
    apparent = np.array([p.score - rule.score for p in rivals])
    winners = differences.argmax(axis=0)  # (resamples,)
    optimism = float(np.mean(differences.max(axis=0) - apparent[winners]))
    own = paired.resampled[best.allocation] - paired.resampled[rule.allocation]
    low, high = np.percentile(own, [2.5, 97.5])
    shift = max(optimism, 0.0)
    return best.score - rule.score - shift, float(low) - shift, float(high) - shift
