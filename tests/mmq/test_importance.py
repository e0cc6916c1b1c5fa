"""Importances of tables with known importances."""

import re

import numpy as np
import pandas as pd
import pytest
from known_tables import QUICK, additive, grid, table

from mmq.analysis import findings
from mmq.analysis import forest as forests
from mmq.analysis.findings import fit_sentence, headline, order_sentence, order_text, share_rows
from mmq.analysis.forest import fit, measure
from mmq.analysis.importance import Settings, rank
from mmq.analysis.interactions import pair_losses, summarize
from mmq.analysis.shapley import expectations, explain, interaction_values, shapley_values
from mmq.analysis.table import Table, log_loss, reference_row, resampled_scores
from mmq.errors import InputError


# --- tables --------------------------------------------------------------------------------------
def test_rows_without_score_are_dropped_and_repeats_averaged_with_notes():
    frame = pd.DataFrame(
        {"vit": [2, 2, 4, 4, 8], "llm": [3, 3, 3, 3, 3], "score": [1, 3, np.nan, 5, "?"]}
    )
    result = table(frame, ("vit", "llm"))
    assert result.bits.tolist() == [[2, 3], [4, 3]]
    assert result.scores.tolist() == [2, 5]
    assert result.notes == (
        "2 of 5 rows dropped: no finite score or bits",
        "1 rows repeat a configuration: their scores are averaged",
    )


def test_a_missing_column_lists_near_names():
    with pytest.raises(InputError, match="Did you mean 'score'"):
        table(grid(additive), score="scor")
    with pytest.raises(InputError, match="none of its 2 rows"):
        table(pd.DataFrame({"vit": [2, 3], "score": [None, "nan"]}), ("vit",))


def test_samples_whose_mean_is_not_the_score_are_left_out():
    frame = grid(additive)
    values = np.tile(frame.score.to_numpy()[:, None] / 100, 6)
    assert table(frame, samples=values).samples.mean(1) == pytest.approx(frame.score)
    result = table(frame, samples=values**3)
    assert result.samples is None
    assert "the score is not their mean" in result.notes[0]


def test_log_loss_is_floored_where_nothing_is_lost_and_takes_negative_losses():
    scores = np.array([50.0, 0.0, 45.0, 49.9, 55.0, -10.0])
    result = log_loss(scores, 0)
    assert result == pytest.approx([-2, 0, -1, -2, -2, np.log10(1.2)])
    assert log_loss(scores, None)[4] == -2  # the best one is the reference
    assert np.isfinite(log_loss(np.array([0.0, 0.0, -1.0]), 0)).all()


# --- shapley values ------------------------------------------------------------------------------
def test_exact_values_are_those_of_tree_explainer():
    shap = pytest.importorskip("shap")
    result = table(grid(lambda v, q, m: v * m + q + (v == 2) * (q == 2) * m))
    forest = fit(result.bits, result.scores, 10, 0)
    cells = expectations(forest, result.bits)
    index = cells.index(result.bits)
    subsets = cells.subsets(index)
    explainer = shap.TreeExplainer(forest)
    assert cells.at(index) == pytest.approx(forest.predict(result.bits))
    assert shapley_values(subsets) == pytest.approx(explainer.shap_values(result.bits))
    theirs = explainer.shap_interaction_values(result.bits)
    assert interaction_values(subsets) == pytest.approx(theirs, abs=1e-9)


def test_integration_table_lookup_and_tree_explainer_agree(monkeypatch):
    result = table(grid(additive))
    quick = measure(result.bits, result.scores, 10, 4, 0)
    monkeypatch.setattr(forests, "MAX_CELLS", 0)
    monkeypatch.setattr(forests, "PAIR_ROWS", 125)
    slow = measure(result.bits, result.scores, 10, 4, 0)
    for name in ("impurity", "permutation", "shap", "interactions"):
        assert getattr(slow, name) == pytest.approx(getattr(quick, name), abs=1e-8), name
    explainer = pytest.importorskip("shap").TreeExplainer
    rng = np.random.default_rng(0)
    bits = rng.choice([2, 4, 16], (60, 12))  # 12 parts: no table
    forest = fit(bits, np.exp(-2 / bits[:, 0]) * bits[:, 1:7].sum(1), 5, 0)
    values, pairs = explain(forest, bits, bits[:9], pairs=True)
    assert values == pytest.approx(explainer(forest).shap_values(bits[:9]))
    theirs = explainer(forest).shap_interaction_values(bits[:9])
    assert pairs == pytest.approx(theirs, abs=1e-9)


def test_many_parts_are_ranked(monkeypatch):
    monkeypatch.setattr(forests, "MAX_CELLS", 0)
    ranking = rank(table(grid(additive)), settings=QUICK)
    assert list(ranking.consensus) == ["llm", "vit", "qformer"]
    assert ranking.interactions[0].low is None
    monkeypatch.setattr(findings, "MAX_NAMED", 1)
    assert re.fullmatch(r"llm 7.%, 2 others 2.% of the importance", headline(ranking))


# --- importances ---------------------------------------------------------------------------------
def test_an_additive_score_gives_its_parts_their_shares():
    ranking = rank(table(grid(additive)), settings=QUICK)
    assert list(ranking.consensus) == ["llm", "vit", "qformer"]
    # variances are 4 : 1, mean absolute effects 2 : 1
    assert ranking.shares["impurity"]["llm"].value == pytest.approx(80, abs=3)
    assert ranking.shares["shap"]["llm"].value == pytest.approx(67, abs=3)
    assert ranking.consensus["qformer"].value < 0.5
    for shares in ranking.shares.values():
        assert sum(share.value for share in shares.values()) == pytest.approx(100)
        assert all(share.low <= share.high for share in shares.values())
    assert ranking.forest.value > 0.95
    assert order_text(ranking) == "llm > vit > qformer"
    assert order_sentence(ranking.orders[0]) == "llm > vit, 100% of resamples"
    assert headline(ranking).startswith("llm 7")
    assert fit_sentence(ranking).startswith("Held-out R²: forest 1.00 (")
    assert [row[0] for row in share_rows(ranking)[1]] == ["llm", "vit", "qformer"]


def test_a_score_of_interaction_alone_makes_both_parts_matter_alike():
    frame = grid(lambda v, q, m: 10.0 if (v > 3) == (m > 3) else 0.0, widths=(2, 3, 4, 8))
    ranking = rank(table(frame), settings=QUICK)
    assert ranking.consensus["vit"].value == pytest.approx(50, abs=8)
    assert ranking.consensus["qformer"].value < 3
    assert "vit ~ llm" in headline(ranking) or "llm ~ vit" in headline(ranking)
    assert ranking.linear.value < 0.1 < ranking.forest.value
    assert (ranking.interactions[0].first, ranking.interactions[0].second) == ("vit", "llm")
    assert ranking.interactions[0].value > 10 * ranking.interactions[1].value


def test_scores_that_are_noise_are_not_ranked():
    rng = np.random.default_rng(0)
    ranking = rank(table(grid(lambda *_: rng.normal())), settings=QUICK)
    assert "does not predict held-out configurations (R² -" in ranking.reason
    assert not ranking.shares
    assert not ranking.orders
    assert headline(ranking).startswith("no ranking: ")
    assert ranking.forest.value < 0.1


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (grid(additive).iloc[::15], "9 configurations are too few to rank 2 parts; at least 12"),
        (grid(additive).head(1), "no part varies over the 1 configurations"),
        (grid(lambda *_: 3.3), "all 125 configurations score the same"),
    ],
)
def test_too_little_is_refused_with_the_reason(frame, message):
    ranking = rank(table(frame), settings=QUICK)
    assert message in ranking.reason
    assert not ranking.shares


def test_a_constant_part_has_importance_0_and_is_reported():
    frame = grid(additive).assign(qformer=4)
    ranking = rank(table(frame), settings=QUICK)
    assert ranking.consensus["qformer"].value == 0
    assert ranking.notes == ("qformer is constant (4 bits): its importance is 0",)
    assert ranking.resamples["configurations"].shape == (10, 4, 3)


def test_tied_scores_are_ranked():
    ranking = rank(table(grid(lambda v, q, m: 0 if m == 2 else 10)), settings=QUICK)
    assert ranking.consensus["llm"].value > 99
    assert {(o.first, o.second) for o in ranking.orders if o.separable} >= {("llm", "vit")}


def test_collapsed_configurations_count_less_in_log_loss():
    def score(v, q, m):  # llm breaks at 2 bits, vit costs a little everywhere
        return 0.0 if m == 2 else 100 - 20 / v

    raw = rank(table(grid(score)), settings=QUICK)
    log = rank(table(grid(score)), "log-loss", QUICK)
    assert raw.consensus["vit"].value < 5
    assert log.consensus["vit"].value > 15
    with pytest.raises(InputError, match="scale: 'loss' is not one of score, log-loss"):
        rank(table(grid(score)), "loss", QUICK)


def test_pictures_are_resampled_where_samples_are_known():
    rng = np.random.default_rng(1)
    frame = grid(lambda v, q, m: 60 - 40 / v - 41 / m)
    noise = rng.normal(0, 1, (2, 30)) * 400  # pictures differ in what vit and llm cost on them
    cost = np.stack([1 / frame.vit, 1 / frame.llm], axis=1)
    values = frame.score.to_numpy()[:, None] + cost @ (noise - noise.mean(1, keepdims=True))
    result = table(frame, samples=values, pictures=[str(k // 2) for k in range(30)])
    assert result.pictures.max() == 14
    ranking = rank(result, settings=QUICK)
    order = ranking.orders[0]
    assert set(order.agreement) == {"configurations", "samples"}
    assert not order.separable
    wide, narrow = ranking.sampled["consensus"]["llm"], ranking.shares["consensus"]["llm"]
    assert wide.high - wide.low > narrow.high - narrow.low
    assert "of pictures" in order_sentence(order)
    scores_by_draw = resampled_scores(result, np.random.default_rng(0))
    assert scores_by_draw.shape == result.scores.shape


def two_tasks(combine, widest=16):
    """A table of shares of two tasks with 12 and 8 pictures, and the scores of their samples."""
    frame = grid(lambda v, q, m: 0)
    frame.loc[frame.llm == 16, "llm"] = widest
    rng, tasks, scores = np.random.default_rng(3), [], []
    for count, part in ((12, "vit"), (8, "llm")):
        values = 50 - 100 / frame[part].to_numpy()[:, None] * rng.random(count)
        share = 100 * values.mean(1) / values.mean(1)[frame.vit.add(frame.llm).argmax()]
        own = frame.assign(score=share)
        names = [f"{k // 2}" for k in range(count)]
        tasks.append(table(own, samples=values, pictures=names))
        scores.append(share)
    joint = np.min(scores, 0) if combine == "worst" else np.mean(scores, 0)
    return table(frame.assign(score=joint)).with_tasks(tasks, combine)


@pytest.mark.parametrize("combine", ["worst", "mean"])
def test_a_combined_score_is_resampled_by_the_pictures_of_each_task(combine):
    joint = two_tasks(combine)
    drawn = resampled_scores(joint, np.random.default_rng(5))
    rng, shares = np.random.default_rng(5), []
    for task in joint.tasks:
        pictures = int(task.pictures.max()) + 1
        chosen = rng.integers(0, pictures, pictures)
        means = np.array([
            np.mean([row[task.pictures == picture].mean() for picture in chosen])
            for row in task.samples
        ])  # fmt: skip
        shares.append(100 * means / means[joint.unquantized])
    expected = np.min(shares, 0) if combine == "worst" else np.mean(shares, 0)
    assert drawn == pytest.approx(expected)
    assert drawn[joint.unquantized] == pytest.approx(100)
    ranking = rank(joint, settings=QUICK)
    assert set(ranking.orders[0].agreement) == {"configurations", "samples"}
    assert all(pair.low < pair.high for pair in pair_losses(joint) if pair.first != "qformer")


def test_without_the_unquantized_model_or_samples_a_combined_score_has_a_note():
    assert "unquantized model" in two_tasks("worst", widest=8).notes[-1]
    joint = two_tasks("worst")
    bare = table(grid(lambda v, q, m: v + m))
    assert "scores per sample" in bare.with_tasks((joint.tasks[0], bare), "worst").notes[-1]
    assert not bare.with_tasks((joint.tasks[0], bare), "worst").has_samples
    rows = np.delete(np.arange(len(joint.scores)), joint.unquantized)
    selected = joint.select(rows)
    assert "unquantized model" in selected.notes[-1]
    assert not selected.has_samples


def test_several_processes_give_the_result_of_one():
    result = table(grid(additive).iloc[::3])
    small = Settings(trees=5, bootstrap=4, repeats=3, jobs=1, quiet=True)
    one = rank(result, settings=small)
    two = rank(result, settings=Settings(trees=5, bootstrap=4, repeats=3, jobs=2, quiet=True))
    assert (one.resamples["configurations"] == two.resamples["configurations"]).all()


def test_settings_are_checked():
    with pytest.raises(InputError, match="bootstrap: 1 is less than 2"):
        Settings(bootstrap=1)


# --- measured interactions -----------------------------------------------------------------------
def test_losses_that_add_up_have_no_measured_interaction():
    (first, *_) = result = summarize(pair_losses(table(grid(additive))))
    assert len(result) == 3
    assert first.n == 16
    assert first.mean == pytest.approx(0, abs=1e-9)
    assert first.n_can_add == 16
    assert abs(first.most.excess) < 1e-9


def test_a_joint_loss_beyond_the_single_ones_is_measured_at_its_widths():
    frame = grid(lambda v, q, m: 100 - 8 / v - (20 if v == 2 and m == 3 else 0))
    values = frame.score.to_numpy()[:, None] + np.linspace(-1, 1, 8)[None] * (frame.vit.to_numpy()
             == 2)[:, None]  # fmt: skip
    losses = pair_losses(table(frame, samples=values))
    (one,) = [each for each in losses if abs(each.excess) > 1]
    assert (one.first, one.second, one.first_bits, one.second_bits) == ("vit", "llm", 2, 3)
    assert one.excess == pytest.approx(20)
    result = summarize(losses)[0]
    assert (result.first, result.second, result.n, result.above, result.below) == (
        "vit", "llm", 16, 1, 0
    )  # fmt: skip


def test_only_configurations_with_their_singles_and_the_reference_count():
    frame = grid(additive)
    no_single = frame[~((frame.vit == 2) & (frame.qformer == 16) & (frame.llm == 16))]
    assert {each.first_bits for each in pair_losses(table(no_single)) if each.first == "vit"} == {
        3, 4, 8
    }  # fmt: skip
    no_reference = table(frame[~((frame.iloc[:, :3] == 16).all(axis=1))])
    assert reference_row(no_reference) is None
    assert pair_losses(no_reference) == []
    assert "against the best score" in rank(no_reference, "log-loss", QUICK).notes[-1]


def test_permutations_that_are_looked_up_are_those_that_are_predicted_one_by_one():
    rng = np.random.default_rng(0)
    bits = rng.choice([2.0, 4.0, 16.0], (60, 4))
    target = bits @ [1.0, 2.0, 0.0, 3.0]
    forest = fit(bits, target, 5, 0)
    result = [
        forests._permuted(
            forest.predict, bits, target, 6, np.random.default_rng(1), one_by_one=way
        )
        for way in (True, False)
    ]
    assert np.array_equal(*result)


def test_large_tables_of_many_parts_are_ranked_by_smaller_forests_that_agree(monkeypatch):
    rng = np.random.default_rng(0)
    parts = tuple(f"part{k}" for k in range(8))
    bits = rng.choice([2.0, 3.0, 4.0, 8.0], (300, len(parts)))
    bits[0] = 8
    loss = np.array([8.0, 4.0, 1.0, 0, 0, 0, 0, 0])
    scores = 80 - (loss * 2.0**-bits).sum(1) * 10 + rng.normal(0, 0.1, len(bits))
    made = Table("t", parts, bits, scores)
    settings = Settings(trees=10, bootstrap=8, repeats=5, jobs=1, quiet=True)
    whole = rank(made, "score", settings)
    monkeypatch.setattr(forests, "LARGE", 200)
    monkeypatch.setattr(forests, "LARGE_SAMPLE", 100)
    bounded = rank(made, "score", settings)
    assert not whole.notes
    assert "with 300 configurations, SHAP values are computed on" in bounded.notes[0]
    for part, share in whole.consensus.items():
        other = bounded.consensus[part]
        assert other.value == pytest.approx(share.value, abs=1.5)
        assert other.low <= other.value <= other.high
        assert other.high - other.low < 3 * (share.high - share.low) + 2
