"""What a search maximizes: scores, or agreement with the unquantized model's answers."""

from types import SimpleNamespace

import pytest
from mmq_plugins.evaluators.retrieval import Retrieval
from mmq_plugins.evaluators.vqa import Vqa
from trial_records import record_of

from mmq.analysis.budgets import Budget
from mmq.analysis.fronts import Point, verdict
from mmq.contracts import Metric
from mmq.errors import InputError
from mmq.studies.objectives import (
    agreement_metrics,
    check_objective,
    has_value,
    parse_objective,
    samples_of,
    value_of,
)

FLIPPED = record_of(
    "vit=4 llm=4",
    metrics={"vqa/accuracy": Metric(60, 4), "flips": Metric(25, 4, 0, 60)},
    name="vqa/accuracy",
    per_sample={"vqa/accuracy": (1.0, 0.0, 0.0, 0.0), "flips": (0.0, 1.0, 0.0, 0.0)},
)


def test_agreement_is_the_share_of_answers_that_did_not_flip():
    assert value_of(FLIPPED, "flips") == Metric(75, 4, 40, 100)
    assert samples_of(FLIPPED, "flips") == [1, 0, 1, 1]
    assert agreement_metrics(FLIPPED) == {
        "agreement": 75, "agreement_low": 40, "agreement_high": 100,
    }  # fmt: skip
    assert value_of(FLIPPED, "score").value == 60
    assert samples_of(FLIPPED, "score") == (1, 0, 0, 0)


def test_the_unquantized_model_agrees_with_itself_and_a_record_without_flips_has_no_value():
    unquantized = record_of("vit=16 llm=16")
    assert value_of(unquantized, "flips").value == 100
    assert set(samples_of(unquantized, "flips")) == {1.0}
    other = record_of("vit=3 llm=3")
    assert has_value(other, "score")
    assert not has_value(other, "flips")
    with pytest.raises(InputError, match="has no flips"):
        value_of(other, "flips")


def test_tasks_that_rank_have_no_answers_that_could_flip():
    check_objective("score", SimpleNamespace(evaluator=Retrieval()))
    check_objective("flips", SimpleNamespace(evaluator=Vqa()))
    with pytest.raises(InputError, match="retrieval ranks pictures and texts"):
        check_objective("flips", SimpleNamespace(evaluator=Retrieval()))
    with pytest.raises(InputError, match="Did you mean 'flips'"):
        parse_objective("flip")


def test_a_bound_on_flips_becomes_the_bound_of_the_objective():
    budget = Budget(max_bpw=4, max_flips=2).for_flips()
    assert budget.least_of(Point("vit=16 llm=16", 16, 100)) == 98
    assert budget.score_text == "within 2% flips"
    assert not Budget().for_flips().scored
    for scored in (Budget(min_score=80), Budget(max_drop=0.01, relative=True)):
        with pytest.raises(InputError, match="bound the flips"):
            scored.for_flips()


def test_the_verdict_names_answers_instead_of_the_score():
    whole = Point("vit=16 llm=16", 16, 100, objective="agreement")
    close = Point("vit=4 llm=4", 4, 99.5, objective="agreement")
    assert verdict([whole, close]) == "4 bpw keeps 99% of the answers: vit=4 llm=4"
    assert "keeps 99.5% of the answers, too few samples" in verdict([whole, close], 0.6)
    assert "keeps 99% of the answers" in verdict([whole, Point("vit=2 llm=2", 2, 50)])
