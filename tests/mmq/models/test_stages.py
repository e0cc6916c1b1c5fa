"""The stage cache: bounded, safely shared, and without effect on the answers."""

import multiprocessing
import os
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from asking import silent
from mmq_plugins.evaluators.captioning import Captioning
from mmq_plugins.evaluators.gqa import Gqa
from mmq_plugins.evaluators.retrieval import Retrieval
from mmq_plugins.evaluators.vqa import Vqa

from mmq.allocation.allocation import BitAllocation
from mmq.artifacts.store import Store
from mmq.config import EvalOptions
from mmq.data.source import find_source
from mmq.errors import InputError
from mmq.evaluation.generating import Task, evaluate
from mmq.models.loading import load_model
from mmq.models.stages import StageCache, cache_limit, encode
from mmq.prepare import prepare
from mmq.record import TrialSpec
from mmq.trial import run_trial


@pytest.fixture
def cache(tmp_path):
    return StageCache(tmp_path / "stages", 10_000)


def rows(n):
    return torch.full((n, 4), float(n))


def test_stored_tensors_are_read_back_unchanged(cache):
    assert cache.get("a") is None
    cache.put("a", rows(10))
    assert torch.equal(cache.get("a"), rows(10))


def test_the_least_recently_used_entry_is_evicted_first(cache):
    for age, key in ((300, "a"), (200, "b"), (100, "c")):
        cache.put(key, rows(150))  # 2,400 bytes each
        os.utime(cache.root / f"{key}.safetensors", (time.time() - age,) * 2)
    cache.get("a")  # used now
    cache.put("d", rows(150))
    cache.put("e", rows(150))
    kept = {path.stem for path in cache.root.glob("*.safetensors")}
    assert {"a", "e"} <= kept
    assert "b" not in kept
    assert sum(path.stat().st_size for path in cache.root.glob("*.safetensors")) <= 10_000


def test_outputs_larger_than_the_cache_are_not_stored(cache):
    cache.put("a", rows(10))
    cache.put("large", rows(5000))
    assert cache.get("large") is None
    assert cache.get("a") is not None


def test_a_damaged_file_is_computed_again(cache):
    cache.put("a", rows(10))
    (cache.root / "a.safetensors").write_bytes(b"half a file")
    assert cache.get("a") is None
    assert not (cache.root / "a.safetensors").exists()


def test_changed_contents_are_computed_again(cache, caplog):
    cache.put("a", rows(100))
    path = cache.root / "a.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-800] + bytes(800))  # as a power cut can leave it
    assert cache.get("a") is None
    assert "is damaged" in caplog.text
    cache.put("a", rows(100))
    assert torch.equal(cache.get("a"), rows(100))


def test_the_output_of_another_key_is_not_taken_for_this_one(cache, caplog):
    for key, n in (("a", 10), ("b", 20)):
        cache.put(key, rows(n))
    shutil.copy(cache.root / "b.safetensors", cache.root / "a.safetensors")
    assert cache.get("a") is None
    assert "is damaged" in caplog.text
    assert torch.equal(cache.get("b"), rows(20))


def test_an_unwritable_cache_folder_is_reported_once_and_not_used(tmp_path, caplog):
    (tmp_path / "stages").write_text("a file, where the folder should be")
    cache = StageCache(tmp_path / "stages", 10_000)
    for _ in range(3):
        cache.put("a", rows(10))
        assert cache.get("a") is None
    assert caplog.text.count("Cannot cache outputs of stages in") == 1
    (tmp_path / "stages").unlink()
    cache.put("a", rows(10))
    assert torch.equal(cache.get("a"), rows(10))


def test_an_unavailable_lock_is_not_damage(cache, caplog):
    cache.put("a", rows(10))
    (cache.root / ".lock").unlink()
    (cache.root / ".lock").mkdir()
    assert cache.get("a") is None
    assert "damaged" not in caplog.text
    (cache.root / ".lock").rmdir()
    assert torch.equal(cache.get("a"), rows(10))


def test_a_tensor_stays_readable_after_it_was_evicted(cache):
    cache.put("a", rows(100))
    held = cache.get("a")
    for k in range(10):
        cache.put(f"other{k}", rows(150))
    assert cache.get("a") is None
    assert torch.equal(held, rows(100))


def test_nothing_is_removed_while_it_is_being_opened(cache, monkeypatch):
    cache.put("a", rows(300))
    opens = torch.UntypedStorage.from_file
    evicting = threading.Thread(target=lambda: cache.put("b", rows(600)))

    def evicted_meanwhile(*args, **options):
        evicting.start()
        evicting.join(0.5)
        return opens(*args, **options)

    monkeypatch.setattr(torch.UntypedStorage, "from_file", evicted_meanwhile)
    assert torch.equal(cache.get("a"), rows(300))
    evicting.join()
    assert [path.stem for path in cache.root.glob("*.safetensors")] == ["a"]  # used last


def _hammer(root, seed, failures):
    cache = StageCache(Path(root), 20_000)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(150):
        n = int(torch.randint(1, 200, (1,), generator=generator))
        result = cache.get(f"n{n}")
        if result is not None and not torch.equal(result, rows(n)):
            failures.put(n)
        cache.put(f"n{n}", rows(n))


def test_two_processes_share_a_cache(tmp_path):
    context = multiprocessing.get_context("spawn")
    failures = context.Queue()
    workers = [
        context.Process(target=_hammer, args=(str(tmp_path), seed, failures)) for seed in (0, 1)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert failures.empty()
    assert sum(path.stat().st_size for path in tmp_path.glob("*.safetensors")) <= 20_000


def test_a_cache_can_be_unbounded(monkeypatch):
    monkeypatch.setenv("MMQ_CACHE_GIB", "inf")
    assert cache_limit() > 2**60


@pytest.mark.parametrize("text", ["much", "-1", "nan"])
def test_an_invalid_size_bound_is_refused(monkeypatch, text):
    monkeypatch.setenv("MMQ_CACHE_GIB", text)
    with pytest.raises(InputError, match="MMQ_CACHE_GIB"):
        cache_limit()


CASES = [
    ("embedded-blip2", "vqa", Vqa(num_beams=5)),
    ("embedded-blip2", "gqa", Gqa(num_beams=1)),
    ("embedded-blip2", "captioning", Captioning(num_beams=3)),
    ("embedded-llava", "vqa", Vqa()),
    ("embedded-llava", "gqa", Gqa(num_beams=3)),
    ("embedded-retrieval", "retrieval", Retrieval(k=16)),
]


@pytest.mark.parametrize(("name", "task", "evaluator"), CASES)
def test_answers_are_the_same_without_with_an_empty_and_with_a_warm_cache(
    name, task, evaluator, tmp_path
):
    model = load_model(name)
    samples = find_source(task, "scenes").samples()[:12]
    evaluator = replace(evaluator, batch_size=8)
    with Task(evaluator, samples, samples) as opened:
        plain = evaluate(opened, model, silent)
        model.stage_cache = StageCache(tmp_path, 10**9)
        for _ in range(2):
            again = evaluate(opened, model, silent)
            assert [p.text for p in again.predictions] == [p.text for p in plain.predictions]
            assert again.metrics == plain.metrics


def calls(model, module):
    """How often a module of the model runs, in a list of one."""
    count = [0]
    model.module.get_submodule(module).register_forward_pre_hook(
        lambda *_: count.__setitem__(0, count[0] + 1)
    )
    return count


def test_trials_that_share_bits_upstream_run_only_what_lies_downstream(tmp_path):
    prepared = prepare(EvalOptions(limit=6), {"batch-size": "4", "num-beams": "1"}, lambda p: [])
    model = prepared.load()
    model.stage_cache = StageCache(tmp_path / "stages", 10**9)
    vit, qformer = calls(model, "vision_model"), calls(model, "qformer")

    def run(bits):
        vit[0] = qformer[0] = 0
        allocation = BitAllocation.parse(bits).over(model.components)
        result = run_trial(
            TrialSpec(prepared.eval_spec, allocation), model,
            prepared.artifacts(Store(tmp_path / "store"), quiet=True),
            prepared.task, quiet=True,
        )  # fmt: skip
        return [p.text for p in result.details.predictions]

    first = run("vit=4,qformer=4,llm=4")
    assert (vit[0], qformer[0]) == (2, 2)
    run("vit=4,qformer=4,llm=3")
    assert (vit[0], qformer[0]) == (0, 0)
    run("vit=4,qformer=8,llm=4")
    assert (vit[0], qformer[0]) == (0, 2)
    run("vit=8,qformer=4,llm=4")
    assert (vit[0], qformer[0]) == (2, 2)
    assert run("vit=4,qformer=4,llm=4") == first
    assert (vit[0], qformer[0]) == (0, 0)


def test_weights_of_unknown_origin_are_not_cached(tmp_path):
    model = load_model("embedded-blip2")
    model.stage_cache = StageCache(tmp_path / "stages", 10**9)
    layer = model.components["vit"].layers[0]
    model.write_("vit", {layer.name: layer.module.weight * 0})
    images = [sample.image for sample in find_source("vqa", "scenes").samples()[:4]]
    encode(model, images, "vision", 4, silent)(images)
    assert not (tmp_path / "stages").exists()
    model.restore_()
    encode(model, images, "vision", 4, silent)(images)
    assert list((tmp_path / "stages").glob("vision-*"))


def test_outputs_that_would_fill_the_cache_are_computed_on_demand(tmp_path):
    model = load_model("embedded-blip2")
    images = list(dict.fromkeys(s.image for s in find_source("vqa", "scenes").samples()[:12]))
    plain = encode(model, images, "connector", 4, silent)(images[:4])
    model.stage_cache = StageCache(tmp_path / "stages", 30_000)
    result = encode(model, images, "connector", 4, silent)(images[:4])
    assert torch.equal(result, plain)
