"""FrontSampler inside a whole run of Ray Tune."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("ray.tune", reason="ray[tune] is not installed: pip install 'ray[tune]'")


def test_ray_tune_evaluates_what_front_sampler_proposes(tmp_path, monkeypatch):
    import ray
    from ray import tune

    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
    import ray_tune

    def objectives(config):
        return {"bits_per_weight": sum(config.values()) / 2, "score": min(config.values())}

    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False,
             object_store_memory=80_000_000)  # fmt: skip
    try:
        results = tune.Tuner(
            objectives,
            tune_config=tune.TuneConfig(
                search_alg=ray_tune.search_algorithm(), num_samples=2, max_concurrent_trials=1
            ),
            run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
        ).fit()
    finally:
        ray.shutdown()
        sys.modules.pop("ray_tune")
    assert results.num_errors == 0
    configs = [tuple(result.config.values()) for result in results]
    assert len(set(configs)) == 2
    assert all(set(config) <= set(ray_tune.BITS) for config in configs)
    assert [r.metrics["score"] for r in results] == [min(config) for config in configs]
