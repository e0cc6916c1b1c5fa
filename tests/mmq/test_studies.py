"""Studies of several quantizers: comparison, saved trials, and resuming after failures."""

import json
import re
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mmq_plugins.quantizers.rtn import Rtn

from mmq.analysis.curves import CurvePoint, Reference, curves_figure, holding_width
from mmq.cli import main
from mmq.config import TaskOptions
from mmq.errors import InputError
from mmq.studies import designs
from mmq.studies import quantizer_choices as choices
from mmq.studies import session as running
from mmq.studies.quantizer_choices import build, parse
from mmq.system.home import home

TINY = ["--model", "embedded-llava", "--limit", "4", "--calibration-samples", "8", "--seed", "3"]


def runs(uri, kind):
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("mmq").experiment_id
    return client.search_runs([experiment], f"tags.`mmq.kind` = '{kind}'")


# --- which quantizers ----------------------------------------------------------------------------
def test_quantizers_are_parsed_with_their_options():
    assert [name for _, name, _ in parse("")] == sorted(name for _, name, _ in parse(""))
    assert {"rtn", "gptq", "awq", "uniform"} <= {name for _, name, _ in parse("")}
    (_, _, none), (label, name, options) = parse("rtn, rtn:group-size=64:symmetric=true")
    assert none == {}
    assert (label, name) == ("rtn:group-size=64:symmetric=true", "rtn")
    assert options == {"group-size": "64", "symmetric": "true"}


@pytest.mark.parametrize(
    "text",
    [
        "rtn,rtn",
        "rtn:64",
        "rtn,,gptq",
        "rtn:group-size=",
        ":x=1",
        "rtn:a-b=1:a_b=2",
        "rtn:a=1:a=1",
    ],
)
def test_malformed_quantizers_are_refused(text):
    with pytest.raises(InputError, match="quantizers: "):
        parse(text)


def test_shared_options_reach_all_that_have_them_and_own_ones_count_more():
    extra = {"group-size": "32", "num-beams": "1"}
    result, evaluator, problems = build("rtn,uniform,rtn:group-size=0", TaskOptions(), extra)
    assert [getattr(c.quantizer, "group_size", None) for c in result] == [32, None, 0]
    assert evaluator.num_beams == 1
    assert not problems


@pytest.mark.parametrize(
    ("text", "extra", "message"),
    [
        ("rnt", {}, "Did you mean 'rtn'"),
        ("rtn", {"gruop-size": "3"}, "group-size"),
        ("uniform", {"group-size": "3"}, "group-size"),
        ("rtn:act-order=true", {}, "act-order"),
        ("rtn:group-size=x", {}, "not a whole number"),
    ],
)
def test_options_that_no_plugin_has_are_refused(text, extra, message):
    with pytest.raises(InputError, match=message):
        build(text, TaskOptions(), extra)


def test_quantizers_that_cannot_be_imported_are_reported_beside_the_others(monkeypatch):
    real = choices.registry.load_class

    def missing(kind, name, base):
        if name == "gptq":
            raise InputError("no such package; pip install it")
        return real(kind, name, base)

    monkeypatch.setattr(choices.registry, "load_class", missing)
    result, _, problems = build("rtn,gptq", TaskOptions(), {})
    assert [(c.label, type(c.quantizer)) for c in result] == [("rtn", Rtn)]
    assert problems == {"gptq": "no such package; pip install it"}


# --- which allocations ---------------------------------------------------------------------------
def test_curves_are_each_component_alone_and_all_together():
    result = [(part, bits, str(a)) for part, bits, a in designs.curves(["vit", "llm"], [3, 8])]
    assert result == [
        ("vit", 3, "vit=3 llm=16"), ("vit", 8, "vit=8 llm=16"), ("llm", 3, "vit=16 llm=3"),
        ("llm", 8, "vit=16 llm=8"), ("all", 3, "vit=3 llm=3"), ("all", 8, "vit=8 llm=8"),
    ]  # fmt: skip
    assert [part for part, _, _ in designs.curves(["llm"], [3])] == ["llm"]


# --- the commands --------------------------------------------------------------------------------
def test_compare_quantizers_measures_all_alike_and_evaluates_once(store_uri, capsys, evaluated):
    command = ["compare-quantizers", *TINY, "--quantizers", "rtn,gptq,gptq:group-size=48"]
    main([*command, "--bits", "3,8"])
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines() if re.match(r"(rtn|gptq) +\d", line)]
    assert [(row[0], row[1]) for row in rows] == [
        ("rtn", "8"), ("gptq", "8"), ("rtn", "3"), ("gptq", "3")
    ]  # fmt: skip
    error = {(row[0], row[1]): float(row[4]) for row in rows}
    assert error["gptq", "3"] < 0.6 * error["rtn", "3"]
    assert error["rtn", "8"] < 0.1 * error["rtn", "3"]
    assert "gptq:group-size=48: not used. group_size: 48 does not divide" in out
    assert len(evaluated) == 5  # the unquantized model once
    main([*command, "--bits", "3,8"])
    assert len(evaluated) == 5
    (study,) = runs(store_uri, "study")
    assert len(runs(store_uri, "trial")) == 5
    assert study.data.params["quantizer.name"] == "rtn, gptq"
    assert study.data.tags["mlflow.note.content"].startswith("Best score at 8 bits")
    table = MlflowClient(store_uri).download_artifacts(study.info.run_id, "comparison.json")
    columns = json.loads(Path(table).read_text())["columns"]
    assert {"quantizer", "bits", "output_error", "score", "seconds"} <= set(columns)


def test_a_trial_that_another_study_recorded_is_logged_not_repeated(store_uri, capsys, evaluated):
    options = [*TINY, "--quantizers", "rtn", "--bits", "4", "--limit", "5"]
    main(["compare-quantizers", *options])
    assert len(evaluated) == 2
    main(["curves", *options, "--figure", "curves.png"])
    assert sorted(evaluated[2:]) == [("rtn", "vit=16 llm=4"), ("rtn", "vit=4 llm=16")]
    first, second = (run.data.tags["mmq.study"] for run in runs(store_uri, "study")[::-1])
    trials = [t for t in runs(store_uri, "trial") if t.data.tags["mmq.study"] == second]
    copied = [t for t in trials if "mmq.recorded_by" in t.data.tags]
    assert len(trials) == 4
    assert len(copied) == 2
    for run in copied:
        original = MlflowClient(store_uri).get_run(run.data.tags["mmq.recorded_by"])
        assert original.data.tags["mmq.study"] == first
        same = {k: v for k, v in original.data.metrics.items() if not k.startswith("seconds/")}
        assert same == {k: v for k, v in run.data.metrics.items() if k in same}
    assert (home() / "records").exists()


def test_curves_continue_after_failures_and_report_their_number(
    store_uri, capsys, evaluated, monkeypatch
):
    real = running.run_trial

    def failing(spec, *rest, **options):
        if str(spec.allocation) == "vit=16 llm=2":
            raise ArithmeticError("once")
        return real(spec, *rest, **options)

    command = ["curves", *TINY, "--quantizers", "rtn", "--bits", "2,8", "--limit", "6"]
    monkeypatch.setattr(running, "run_trial", failing)
    with pytest.raises(SystemExit, match="1"):
        main(command)
    monkeypatch.setattr(running, "run_trial", real)
    count = len(evaluated)
    main(command)
    assert evaluated[count:] == [("rtn", "vit=16 llm=2")]
    states = [run.info.status for run in runs(store_uri, "trial")]
    assert sorted(states) == ["FAILED"] + ["FINISHED"] * 7
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["part", "rtn"] in lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["curves", "--figure", "nowhere/x.png"], "figure: "),
        (["curves", "--figure", "x.svg"], "figure: "),
        (["compare-quantizers", "--bits", "16"], "nothing to quantize"),
        (["compare-quantizers", "--study", "a b"], "study: "),
        (["compare-quantizers", "--quantizers", "rtn:group-size=7"], "none of them can be used"),
    ],
)
def test_bad_arguments_are_refused_before_the_work(arguments, message, store_uri, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


# --- curves --------------------------------------------------------------------------------------
def test_the_holding_width_is_where_the_curve_last_falls_below():
    points = [
        CurvePoint("q", "llm", b, s) for b, s in {2: 99, 3: 50, 4: 98.9, 5: 99, 8: 100}.items()
    ]
    assert holding_width(points, 100, 0.99) == 5
    assert holding_width(points, 100, 0.98) == 4
    assert holding_width(points, 102, 0.99) is None


def test_every_curve_is_drawn_in_its_panel():
    points = [
        CurvePoint(q, part, bits, 10.0 * bits, 9.0 * bits, 11.0 * bits)
        for q in ("rtn", "gptq") for part in ("vit", "all") for bits in (2, 4, 8)
    ]  # fmt: skip
    figure = curves_figure(points, Reference(90, 85, 95, 7), "score", "title")
    titles = [panel.get_title() for panel in figure.axes]
    assert titles == ["vit alone", "all components"]
    for panel in figure.axes:
        assert len(panel.containers) == 2
        assert [list(c.lines[0].get_ydata()) for c in panel.containers] == [[20, 40, 80]] * 2
    assert "n = 7" in figure.axes[0].get_ylabel()
