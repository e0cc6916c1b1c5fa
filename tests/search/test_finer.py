"""Additive proposals on a made-up model whose true losses are known."""

import numpy as np
import pytest
from mmq_search.command import next_trial
from mmq_search.finer import POWER, ROUND, Additive, factors
from mmq_search.space import Space
from mmq_search.study import SearchStudy

BITS = (2, 3, 4, 5, 6, 8, 16)
SPACE = Space(("vit", "llm"), BITS, "fine")
PARTS = len(SPACE.parts)


def made_up(seed, error):
    """The additive model with a profile that is wrong by random factors, and the true score."""
    rng = np.random.default_rng(seed)
    weights = [int(w) for w in rng.choice([1024, 4096, 16384], PARTS)]
    scale = rng.lognormal(0, 1.5, PARTS)
    profile = {
        part: {bits: 0.0 if bits == 16 else float(s * 4.0 ** (2 - bits)) for bits in BITS}
        for part, s in zip(SPACE.parts, scale, strict=True)
    }
    true = rng.lognormal(0, error, PARTS)

    def score(allocation):
        levels = SPACE.params(allocation)
        lost = [t * profile[p][BITS[levels[p]]] for t, p in zip(true, SPACE.parts, strict=True)]
        return 80 * float(np.exp(-np.sum(np.power(lost, POWER))))

    return Additive(SPACE, weights, profile), score


def volume(additive, scores):
    """Area under the front, over the share of the quantizable weights' bits."""
    total, area, top, before = 16 * sum(additive.weights), 0.0, 0.0, 0.0
    sizes = {}
    for allocation in scores:
        levels = SPACE.params(allocation)
        pairs = zip(additive.weights, SPACE.parts, strict=True)
        sizes[allocation] = sum(w * BITS[levels[p]] for w, p in pairs) / total
    for allocation in sorted(scores, key=sizes.__getitem__):
        area += top * (sizes[allocation] - before)
        top, before = max(top, scores[allocation]), sizes[allocation]
    return area


def test_proposals_are_fresh_and_close_the_gaps_of_the_front():
    additive, score = made_up(0, 0.3)
    scores = {allocation: score(allocation) for allocation in SPACE.diagonal()}
    for _ in range(4):
        proposed = additive.propose(scores, 8)
        assert len(set(map(str, proposed))) == 8
        assert not {str(a) for a in proposed} & {str(a) for a in scores}
        scores |= {allocation: score(allocation) for allocation in proposed}
    kept = np.sort(list(scores.values()))
    assert np.diff(kept[kept > 8]).max() < 8  # a tenth of the best score


def test_proposals_without_scores_need_none():
    additive, _ = made_up(0, 0)
    assert len(additive.propose({}, 5)) == 5


@pytest.mark.parametrize("seed", range(4))
def test_what_was_evaluated_mends_a_wrong_profile(seed):
    additive, score = made_up(seed, 1.0)
    start = {allocation: score(allocation) for allocation in SPACE.diagonal()}
    plain, mended = dict(start), dict(start)
    plain |= {a: score(a) for a in additive.propose(start, 40)}
    for _ in range(5):
        mended |= {a: score(a) for a in additive.propose(mended, 8)}
    assert volume(additive, mended) > volume(additive, plain)


def test_factors_are_found_where_scores_tell_them():
    rng = np.random.default_rng(0)
    losses = np.sort(rng.random((3, 4)))[:, ::-1].copy()
    losses[:, 3] = 0
    true = np.array([0.2, 1.0, 3.0])
    picks = [(3, 3, 3), *(tuple(rng.integers(0, 4, 3)) for _ in range(40))]
    scores = {p: 50 * float(np.exp(-sum(true * losses[range(3), p]))) for p in picks}
    assert factors(losses, scores) == pytest.approx(true, rel=0.3)


def test_a_model_that_scores_nothing_tells_nothing():
    assert factors(np.ones((2, 3)), {(0, 0): 0.0}).tolist() == [1, 1]


def test_a_search_asks_the_diagonal_then_the_proposals(tmp_path):
    additive, _ = made_up(0, 0)
    study = SearchStudy("fine", {}, SPACE, tmp_path, seed=0)
    diagonal = [str(next_trial(study, additive).allocation) for _ in BITS]
    assert diagonal == [str(a) for a in SPACE.diagonal()]
    first = next_trial(study, additive)
    proposed = [str(a) for a in additive.propose({}, ROUND) if str(a) not in diagonal]
    assert [
        str(first.allocation),
        *(str(study.ask().allocation) for _ in proposed[1:]),
    ] == proposed
    assert study.waiting == 0
