"""Searches for an export target: in its widths, by its bytes or its times, to the file itself."""

from contextlib import nullcontext
from dataclasses import dataclass

import pytest
from logged_runs import refused, runs_of
from mlflow import MlflowClient
from mmq_plugins.targets.gguf import Gguf
from mmq_search.space import Space
from mmq_search.target_search import CONFIRMED
from test_study import finish, open_study

import mmq
from mmq.cli import main
from mmq.contracts.timing import AnswerTiming
from mmq.export.facts import file_sizes

GIB = 1024**3
SEARCH = {
    "model": "embedded-llava", "task": "vqa", "limit": 4, "task_options": {"num_beams": 1},
    "target": "gguf", "study": "s",
}  # fmt: skip
COMMAND = ["search", "--model", "embedded-llava", "--limit", "4", "--num-beams", "1"]


def test_the_file_of_the_selected_allocation_is_within_the_budget(store_uri, tmp_path, capsys):
    budget = 0.0036
    study = mmq.search(**SEARCH, bits=[3, 4, 7, 16], n_trials=4, max_size_gib=budget)
    assert "Not searched for the target gguf: vit=7 llm=7 (as many bytes as 8 bits)" in (
        capsys.readouterr().err
    )
    (selection,) = study.selections()
    point = selection.point
    assert point.unit == "GiB as gguf"
    assert point.cost.gib <= budget
    assert f"{point.cost.gib:.4g} GiB as gguf" in selection.headline
    (trial,) = (r for r in runs_of(store_uri, "trial") if r.info.run_id == point.run_id)
    assert trial.data.metrics["size/target_gib"] == pytest.approx(point.cost.gib, abs=1e-8)
    assert trial.data.params["quantizer.group_size"] == "0,4=32,5=32"
    out = tmp_path / "mine"
    main(["export", "--run", point.run_id, "--target", "gguf", "--no-verify", "--out", str(out)])
    weighed = sum(file_sizes(out).values())
    assert weighed <= budget * GIB
    assert weighed == pytest.approx(point.cost.gib * GIB, rel=0.005)
    assert study.front()[0].spec.eval_spec.quantizer_options["group_size"] == "0,4=32,5=32"


@dataclass
class Scales:
    """A model that takes a millisecond per KiB of its files."""

    size: int

    def time_answer(self, request, config):
        return AnswerTiming(self.size / 2**20, config.max_new_tokens, 0.0, self.size / 2**20)


def test_a_search_by_latency_names_cost_and_machine_and_confirms_its_front(
    store_uri, monkeypatch, capsys
):
    def weighed(self, folder, device):
        return nullcontext(Scales(sum(path.stat().st_size for path in folder.iterdir())))

    monkeypatch.setattr(Gguf, "open", weighed)
    monkeypatch.setattr(Gguf, "engine_version", lambda self: "scales 1")
    options = ["--bits", "4,16", "--n-trials", "3", "--study", "t", "--prune", "false"]
    main([*COMMAND, "--target", "gguf", "--cost", "latency", "--max-latency-ms", "7000", *options])
    text = capsys.readouterr().out
    assert "best under 7000 ms: " in text
    assert "ms per answer in gguf, " in text
    assert "ms measured" in text
    (run,) = runs_of(store_uri, "study")
    assert run.data.metrics["latency/largest_error"] < 0.01
    assert CONFIRMED in [a.path for a in MlflowClient(store_uri).list_artifacts(run.info.run_id)]
    times = [r.data.metrics["latency/ms"] for r in runs_of(store_uri, "trial")]
    assert max(times) > 2 * min(times)


def test_parts_with_fewer_widths_are_searched_completely(tmp_path):
    space = Space(("vit", "llm"), (2, 4, 16), limits=(("vit", (16,)), ("llm", (2, 4))))
    assert [(name, str(allocation)) for name, allocation in space.rules()] == [
        ("vision at 16, language model at 4", "vit=16 llm=4"),
        ("vision at 16, language model at 2", "vit=16 llm=2"),
    ]
    assert not space.has_baseline
    study = open_study(tmp_path, space=space)
    assert sorted(finish(study, 5)) == sorted(str(a) for a in space)
    assert space.describe() == "2 allocations of the bits of vit (16), llm (2, 4)"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--target", "gufg"], "Unknown target 'gufg'. Did you mean 'gguf'?"),
        (["--cost", "latency"], "give one that is timed, e.g. --target gguf"),
        (["--target", "compressed-tensors:vllm", "--cost", "latency"], "choose --target gguf"),
        (["--max-latency-ms", "9"], "--target gguf --cost latency"),
        (["--target", "gguf", "--size-axis", "nominal"], "compares its files"),
        (["--target", "gguf", "--model", "embedded-blip2"], "cannot write Blip2"),
        (["--target", "gguf", "--max-size-gib", "0.001"], "the least, vit=2 llm=2, takes 0.002"),
        (["--target", "gguf", "--max-size-gib", "1"], "the most, vit=16 llm=16, takes 0.009479"),
    ],
)
def test_bad_input_is_refused_before_a_model_is_loaded(
    store_uri, monkeypatch, capsys, options, reason
):
    monkeypatch.setattr("mmq.prepare.load_model", None)
    refused([*COMMAND, "--n-trials", "2", *options])
    assert reason in capsys.readouterr().err
