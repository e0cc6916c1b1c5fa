"""`mmq analyze` on imported and on real studies, in a real store."""

import json
import re
from pathlib import Path

import pytest
from known_tables import additive, grid
from mlflow import MlflowClient

from mmq.cli import main
from mmq.tracking.queries import find_trials
from mmq.tracking.sample_scores import read_samples

QUICK = ["--bootstrap", "4", "--trees", "10", "--repeats", "5", "--jobs", "1"]


def imported(frame, quantizer, **more):
    """A study of a frame, named after its quantizer."""
    frame = frame.rename(columns={part: f"{part}_bits" for part in ("vit", "qformer", "llm")})
    frame.to_csv(f"{quantizer}.csv", index=False)
    options = {"study": quantizer, "quantizer": quantizer, **more}
    arguments = [text for key, value in options.items() for text in (f"--{key}", value)]
    main(["import-results", f"{quantizer}.csv", *arguments])


def runs(uri, kind):
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("mmq").experiment_id
    return client.search_runs([experiment], f"tags.`mmq.kind` = '{kind}'")


def table(uri, run, name):
    path = MlflowClient(uri).download_artifacts(run.info.run_id, name)
    result = json.loads(Path(path).read_text())
    return [dict(zip(result["columns"], row, strict=True)) for row in result["data"]]


def test_imported_studies_are_compared_on_what_they_share_and_logged(store_uri, capsys):
    every = grid(additive)
    imported(every[every.llm > 2], "gptq")
    imported(every, "awq")
    capsys.readouterr()
    main(["analyze", "--study", "gptq, awq", *QUICK])
    out = capsys.readouterr().out
    first = out.strip().splitlines()[0]
    assert first.startswith("awq: llm ")
    assert "; gptq: llm " in first
    assert "The designs differ: gptq has no llm=2; 100 configurations are shared" in out
    assert "llm > qformer, 100% of resamples" in out
    assert "vit x llm: joint loss minus the sum of single losses is" in out
    (run,) = runs(store_uri, "analysis")
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.note.content"].splitlines()[0] == first
    for parent in runs(store_uri, "study"):
        assert f"runs/{parent.info.run_id})" in run.data.tags["mlflow.note.content"]
    assert run.data.params["analysis.bootstrap"] == "4"
    assert run.data.metrics["r2_forest"] > 0.9
    shown = {each["path"] for each in json.loads(run.data.tags["mlflow.loggedArtifacts"])}
    assert shown == {
        "importance.json", "orders.json", "fits.json", "shap_interactions.json",
        "measured_interactions.json",
    }  # fmt: skip
    rows = table(store_uri, run, "importance.json")
    expected = {"table": "gptq", "configurations": "shared", "measure": "consensus", "part": "llm"}
    (row,) = (r for r in rows if expected.items() <= r.items())
    assert row["low"] <= row["percent"] <= row["high"]
    assert len(rows) == (2 * 2 + 2) * 4 * 3  # tables on two scales, and matched; measures; parts


def test_a_filter_or_a_tag_chooses_trials(store_uri, capsys):
    imported(grid(additive, qformer=4), "gptq")
    imported(grid(additive), "awq")
    capsys.readouterr()
    query = "params.`quantizer.name` = 'awq'"
    main(["analyze", "--filter", query, *QUICK])
    out = capsys.readouterr().out
    assert out.strip().startswith("awq: llm ")
    assert "gptq" not in out
    main(["analyze", "--tag", "mmq.study=gptq", *QUICK])
    out = capsys.readouterr().out
    assert "qformer is constant (4 bits): its importance is 0" in out


def test_files_are_analysed_without_importing_them(store_uri, capsys):
    frame = grid(additive)
    frame.loc[3, "score"] = None
    frame.rename(columns={"vit": "v", "llm": "l"}).to_csv("grid.csv", index=False)
    main(["analyze", "--file", "grid.csv", "--bits-columns", "vit=v,llm=l,q=qformer", *QUICK])
    out = capsys.readouterr().out
    assert out.strip().startswith("grid: llm ")
    assert "1 invalid rows skipped:\n  line 5: score: empty" in out
    assert not runs(store_uri, "trial")


def test_refused_rankings_are_reported_and_logged(store_uri, capsys):
    imported(grid(additive).head(6), "gptq")
    main(["analyze", *QUICK])
    assert "no ranking: 6 configurations are too few to rank" in capsys.readouterr().out
    (run,) = runs(store_uri, "analysis")
    assert run.data.tags["mlflow.note.content"].startswith("gptq: no ranking: 6 configurations")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--study", "gtpq"], "Unknown study 'gtpq'. Did you mean 'gptq'?"),
        (["--experiment", "mqm"], "Unknown experiment 'mqm'. Did you mean 'mmq'?"),
        (["--score", "cider"], "score: no trial has the metric 'cider'"),
        (["--tag", "mmq.study=x"], "no finished trials in experiment 'mmq' with tags.`mmq.study`"),
        (["--filter", "x y z"], "filter: 'x y z' is not a valid MLflow filter"),
        (["--filter", "params.`bits.llm` = '2'"], "gptq: there is only one configuration"),
        (["--bootstrap", "1"], "bootstrap: 1 is less than 2"),
        (["--file", "gptq.csv", "--study", "gptq"], "not both"),
        (["--bootstarp", "3"], "Did you mean 'bootstrap'"),
    ],
)
def test_bad_input_ends_before_the_work(store_uri, capsys, options, message):
    imported(grid(additive).head(5), "gptq")
    with pytest.raises(SystemExit):
        main(["analyze", *QUICK, *options])
    assert message in capsys.readouterr().err
    assert not runs(store_uri, "analysis")


def test_real_trials_bring_their_samples_and_share_the_unquantized_model(store_uri, capsys):
    tiny = ["--model", "embedded-llava", "--limit", "6", "--num-beams", "1"]
    main(["grid", *tiny, "--quantizer", "uniform", "--bits", "2,3,4,16", "--study", "grid"])
    main(["compare-quantizers", *tiny, "--quantizers", "uniform,rtn", "--bits", "4"])
    capsys.readouterr()
    answers, links = find_trials("mmq")
    by_name = {each.name: each for each in answers}
    assert {name: len(each.trials) for name, each in by_name.items()} == {"uniform": 16, "rtn": 2}
    assert len(links) == 2
    read_samples(answers, quiet=True)
    uniform = by_name["uniform"]
    assert {len(values) for values in uniform.samples.values()} == {6}
    assert len(uniform.pictures) == 6
    assert not uniform.notes
    main(["analyze", "--study", "grid", *QUICK])
    out = capsys.readouterr().out
    assert "no ranking" in out or "of resamples of pictures" in out
    assert "skipped" not in out


def test_a_report_is_written_with_its_figures(store_uri, capsys):
    frame = grid(additive).rename(columns={p: f"{p}_bits" for p in ("vit", "qformer", "llm")})
    frame.to_csv("one.csv", index=False)
    frame[frame.llm_bits > 2].to_csv("two.csv", index=False)
    main(["analyze", "--file", "one.csv,two.csv", "--report", "found.md", *QUICK])
    report = Path("found.md").read_text()
    assert report.startswith("# one: ")
    pictures = re.findall(r"\]\((.*?\.png)\)", report)
    assert pictures == [
        "found-importance-score.png", "found-importance-log-loss.png", "found-matched.png"
    ]  # fmt: skip
    assert all(Path(name).stat().st_size > 10_000 for name in pictures)
    with pytest.raises(SystemExit):
        main(["analyze", "--file", "one.csv", "--report", "found.txt"])
    assert "report: " in capsys.readouterr().err
