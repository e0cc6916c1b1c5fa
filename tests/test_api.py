"""`import mmq`: what the commands do, as functions of plain values."""

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import mmq_search.api
import pytest
from mmq_plugins.quantizers.gptq import Gptq
from mmq_plugins.quantizers.rtn import Rtn
from mmq_search.command import SearchOptions

import mmq
from mmq import api
from mmq.contracts import registry
from mmq.errors import InputError
from mmq.record import TrialRecord
from mmq.studies.options import (
    AnalyzeOptions,
    BaselineOptions,
    CurvesOptions,
    GridOptions,
    QuantizerStudyOptions,
)

ROOT = Path(__file__).parents[1]
DRY_RUN = {"dry_run"}  # prints, and returns nothing
TINY = {"model": "embedded-llava", "limit": 4}


@pytest.fixture
def _search(monkeypatch):
    """The search command of the entry point, installed or not."""
    real = registry.load

    def load(kind, name):
        return mmq_search.api.search if kind == "function" else real(kind, name)

    monkeypatch.setattr(registry, "load", load)


def test_importing_mmq_imports_neither_torch_nor_mlflow_nor_optuna():
    code = (
        "import sys, mmq; print([m for m in ('torch', 'mlflow', 'optuna', 'click') "
        "if m in sys.modules], sorted(n for n in dir(mmq) if n[0] != '_'))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.startswith("[] ['BitAllocation', 'EvalSpec'")


def test_every_public_name_exists_and_others_do_not():
    assert all(getattr(mmq, name) for name in mmq.__all__)
    with pytest.raises(AttributeError, match="module 'mmq' has no attribute 'serach'"):
        mmq.serach  # noqa: B018


@pytest.mark.parametrize(
    ("arguments", "options", "other"),
    [
        (api.TrialArguments, BaselineOptions, set()),
        (api.DesignArguments, GridOptions, DRY_RUN),
        (api.QuantizersArguments, QuantizerStudyOptions, DRY_RUN),
        (api.CurvesArguments, CurvesOptions, DRY_RUN),
        (api.SearchArguments, SearchOptions, DRY_RUN),
        (api.AnalyzeArguments, AnalyzeOptions, {"study"}),  # the function's positional arguments
    ],
)
def test_arguments_are_the_options_of_the_command(arguments, options, other):
    plugins = {"quantizer_options", "task_options", "launcher_options"}
    names = {field.name for field in fields(options)} - other
    assert set(arguments.__annotations__) - plugins == names


def test_values_become_the_options_of_the_command():
    given = {
        **TINY, "limit": 0.1, "bits": [3, 16], "max_drop": 0.01, "timeout": 90, "prune": False,
        "quantizer": Rtn(group_size=32), "task_options": {"num_beams": 1},
    }  # fmt: skip
    options, plugins = api.read_arguments(SearchOptions, given)
    assert (options.limit, options.bits, options.max_drop) == ("10%", "3,16", "1%")
    assert (options.timeout, options.prune, options.quantizer) == ("90", False, "rtn")
    assert plugins["quantizer.group_size"] == 32
    assert plugins["evaluator.num_beams"] == 1
    several = {"quantizers": ["rtn", Gptq(act_order=False)], "quantizer_options": {"damping": 0.1}}
    options, plugins = api.read_arguments(QuantizerStudyOptions, several)
    assert options.quantizers == "rtn,gptq:act_order=false"
    assert plugins == {"damping": 0.1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"limt": 3}, "Unknown argument 'limt'. Did you mean 'limit'"),
        ({"limit": 1.5}, "limit: 1.5 is not a share between 0 and 1"),
        ({"seed": "3"}, "seed: '3' is not of type int"),
        (
            {"quantizer_options": {"group_size": 1.5}},
            "group_size: 1.5 is not valid for this option",
        ),
        ({"quantizer_options": {"gruop_size": 64}}, "group-size"),
        ({"bits": {"vit": 7.5}}, "bits: 7.5 is not one of"),
    ],
)
def test_a_wrong_argument_is_refused_before_any_model_is_loaded(arguments, message):
    with pytest.raises(InputError, match=re.escape(message)):
        mmq.evaluate(**({"bits": {"vit": 4}} | TINY | arguments))


def test_a_study_is_run_read_and_analyzed(store_uri, evaluated):
    study = mmq.grid(**TINY, quantizer="rtn", bits=[3, 16], study="g")
    assert len(evaluated) == 4
    assert {str(record.allocation) for record in study.records()} == {
        "vit=16 llm=16", "vit=16 llm=3", "vit=3 llm=16", "vit=3 llm=3"
    }  # fmt: skip
    assert study.record({"vit": 3, "llm": 16}).size.bpw < 16
    sizes = [record.size.stored_bpw for record in study.front()]
    assert sizes == sorted(sizes)
    best = study.best(max_bpw=9.0)
    assert best.point.stored_bpw <= 9
    smallest = study.best(max_gib=study.record("vit=3 llm=3").size.stored_gib * 1.001)
    assert smallest.point.allocation == "vit=3 llm=3"
    with pytest.raises(InputError, match="Unknown allocation 'vit=4 llm=4'"):
        study.record("vit=4,llm=4")
    loaded = mmq.load_study("g")
    assert {r.run_id: r for r in loaded.records()} == {r.run_id: r for r in study.records()}
    assert loaded.best(max_bpw=9.0).text == best.text
    assert "4 configurations are too few" in mmq.analyze(study, trees=5).analysis.finding
    assert len(evaluated) == 4
    for record in study.records():
        assert TrialRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


@pytest.mark.usefixtures("_search")
def test_the_example_of_the_page_runs(store_uri, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), re.S)
    names = {}
    exec(example, names)
    assert len(names["study"].records()) == 4
    assert str(names["record"].allocation) == "vit=4 llm=3"
    assert "best under 6 bpw" in capsys.readouterr().out
