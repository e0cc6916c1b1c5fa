"""FrontSampler inside Ray Tune, for people who already tune there.

    pip install 'mmq[ray]' 'ray[tune]'
    python examples/ray_tune.py

OptunaSearch, a search algorithm of Ray Tune, gets its proposals from FrontSampler, which knows the
size of an allocation before it is evaluated. `mmq search --launcher ray` also places workers on a
Ray cluster, and adds records, pruning, nested MLflow runs and resuming.
"""

from mmq_search.front_sampler import FrontSampler
from ray import tune
from ray.tune.search.optuna import OptunaSearch

import mmq

PARTS, BITS = ("vit", "llm"), (3, 4, 8, 16)
SPACE = {part: tune.choice(BITS) for part in PARTS}


def evaluate(config: dict[str, int]) -> dict[str, float]:
    """Return the size and the score of one allocation, as a trial of Ray Tune."""
    record = mmq.evaluate(config, model="embedded-llava", limit=20)
    return {"bits_per_weight": record.size.bpw, "score": record.score.value}


def search_algorithm(seed: int = 0) -> OptunaSearch:
    """Return a search algorithm of Ray Tune for the front of size against score."""
    return OptunaSearch(
        space=SPACE,
        metric=["bits_per_weight", "score"],
        mode=["min", "max"],
        sampler=FrontSampler(seed=seed),
    )


def main() -> None:
    """Evaluate ten allocations, two at a time, and print their sizes and scores."""
    config = tune.TuneConfig(
        search_alg=search_algorithm(),
        num_samples=10,
        max_concurrent_trials=2,
        reuse_actors=True,  # a process imports mmq once, for all of its trials
    )
    results = tune.Tuner(evaluate, tune_config=config).fit()
    columns = [*(f"config/{part}" for part in PARTS), "bits_per_weight", "score"]
    print(results.get_dataframe()[columns].sort_values("bits_per_weight").to_string(index=False))


if __name__ == "__main__":
    main()
