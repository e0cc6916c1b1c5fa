"""Imported tables of results: valid rows, refused ones, and no duplicates."""

import json
import os
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mmq.analysis.results_file import parse_sizes, read_results
from mmq.cli import main
from mmq.errors import InputError

HEAD = "vit_bits,llm_bits,cider,meteor,bpw"
ROWS = ("16,16,1.3,0.3,16", "4,16,1.2,0.28,9", "16,4,1.25,0.29,8", "4,4,1.1,0.27,4")


def write(folder, rows=ROWS, head=HEAD, name="grid.csv"):
    path = Path(folder) / name
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def runs(uri, kind, study="grid"):
    client = MlflowClient(uri)
    ids = [each.experiment_id for each in client.search_experiments()]
    query = f"tags.`mmq.kind` = '{kind}' and tags.`mmq.study` = '{study}'"
    return client.search_runs(ids, query)


# --- reading -------------------------------------------------------------------------------------
def test_columns_are_found_by_their_names_or_set_by_options(tmp_path):
    results = read_results(write(tmp_path), score="cider")
    assert results.parts == ["vit", "llm"]
    assert results.unread == ["meteor"]
    assert str(results.rows[1].allocation) == "vit=4 llm=16"
    assert results.rows[1].metrics == {"score": 1.2, "cider": 1.2, "bpw": 9}
    assert [row.line for row in results.rows] == [2, 3, 4, 5]
    path = write(tmp_path, ["4.0;16;0.5"], "a;b;score", "b.csv")
    (row,) = read_results(path, {"llm": "b", "vit": "a"}).rows
    assert str(row.allocation) == "llm=16 vit=4"


def test_json_lists_and_lines_are_read_with_the_lines_they_start_in(tmp_path):
    rows = [{"bits.vit": 4, "bits.llm": bits, "score": 0.5} for bits in (3, 8)]
    path = tmp_path / "a.json"
    path.write_text(json.dumps([*rows, {"bits.vit": 9, "score": None}, 3], indent=1))
    results = read_results(path)
    assert [row.line for row in results.rows] == [2, 7]
    assert results.problem_text.splitlines() == [
        "  line 12: bits.vit: 9 is not one of [2, 3, 4, 5, 6, 7, 8, 16]; bits.llm: empty; "
        "score: empty",
        "  line 16: 3 is not a row with named cells",
    ]
    path.write_text(json.dumps([{"bits": {"vit": 4}, "R@1": 7}]))
    (nested,) = read_results(path, score="R@1").rows
    assert (str(nested.allocation), nested.metrics["R_1"]) == ("vit=4", 7)
    path.write_text("\n".join(map(json.dumps, rows)))
    assert read_results(path).rows == [
        row.__class__(k, row.allocation, row.metrics)
        for k, row in enumerate(results.rows, start=1)
    ]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("vit_bits,score\n", {}, "it has no rows"),
        ("", {}, "it has no rows"),
        ("vision,score\n4,1\n", {}, "no column has a name like vit_bits or vit"),
        (
            "vit_bits,cider\n4,1\n",
            {},
            "there is no column named score; choose one of vit_bits, cider",
        ),
        ("vit_bits,cider\n4,1\n", {"score": "cyder"}, "Did you mean 'cider'"),
        (
            "vit_bits,score\n4,1\n",
            {"bits": {"v t": "vit_bits"}},
            "'v t' is not the name of a part",
        ),
        ("vit_bits,score,bpw\n4,1,3\n", {"scores": ["bpw"]}, "cannot be the name of a metric"),
        ('[{"vit_bits": 4, "score": 1},\n{"vit_bits": }]', {}, "line 2 is not valid JSON"),
        ('{"vit_bits": {"0": 4}, "score": {"0": 1}}', {}, "is not a list of rows"),
    ],
)
def test_files_that_cannot_be_read_are_refused(tmp_path, text, options, message):
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_results(path, **options)
    with pytest.raises(InputError, match="cannot be read"):
        read_results(tmp_path / "nothing.csv")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("vit_bits, vit_bits,score\n4,8,1\n", {},
         "the column 'vit_bits' is duplicated, as columns 1 and 2"),
        ("vit_bits,score,score\n4,1,2\n", {"score": "score"}, "duplicated, as columns 2 and 3"),
        ("vit_bits,bits.vit,score\n4,8,1\n", {}, "'vit_bits' and 'bits.vit' have"),
        ("vit_bits,vit,score\n4,8,1\n", {}, "'vit_bits' and 'vit' have the same meaning"),
        ("vit_bits,VIT_Bits,score\n4,8,1\n", {}, "'vit_bits' and 'VIT_Bits' have"),
        ("vit_bits,score,Score\n4,1,2\n", {}, "'score' and 'Score' .* choose with --score"),
        ("vit_bits,score,bpw,BPW\n4,1,2,3\n", {}, "'bpw' and 'BPW' .* choose with --bpw"),
        ("vit_bits,score,R@1,R_1\n4,1,2,3\n", {"scores": ["R@1", "R_1"]}, "'R_1' are one metric"),
        ("vit_bits,score,R@1\n4,1,2\n", {"scores": ["R@1", "R@1"]}, "'R@1' and 'R@1' are one"),
        ('[{"vit_bits": 4, "score": 1},\n {"vit_bits": 4, "score": 1, "score": 2}]', {},
         r'line 2 is not .* the key "score" appears twice \(line 2, column 18 and .* column 30'),
        ('{"vit_bits": 4, "score": 1, "a": {"b": 1, "b": 2}}', {}, 'the key "b" appears twice'),
        ('[{"bits": {"vit": 4}, "bits.vit": 8}]', {}, "line 1: 'bits.vit' is duplicated"),
        ('[{"bits.vit": 4, "score": 1}, {"vit_bits": 4, "score": 1}]', {}, "the same meaning"),
        ('[{"vit_bits": 4, "a": ' + 30 * '{"a":' + "1" + 32 * "}" + "]", {}, "deeper than"),
        ("[" * 100_000, {}, "nested too deeply"),
        ('vit_bits,score\n"4,1\n', {}, "line 1 is not valid CSV: unexpected end of data"),
    ],
)  # fmt: skip
def test_duplicates_and_invalid_tables_are_refused_with_their_places(
    tmp_path, text, options, message
):
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_results(path, **options)


def test_columns_that_the_user_chose_are_not_mistaken(tmp_path):
    path = write(tmp_path, ["4,opt,1,2", "8,opt,2,3"], "llm_bits,llm,score,Score")
    with pytest.raises(InputError, match="'score' and 'Score'"):
        read_results(path)
    assert read_results(path, score="score").unread == ["llm", "Score"]
    path = write(tmp_path, ["4,8,1"], "vit_bits,vit,score")
    assert read_results(path, {"vit": "vit"}).rows[0].allocation["vit"] == 8


def test_a_table_that_is_not_a_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "grid.csv")
    with pytest.raises(InputError, match=r"grid.csv is a named pipe"):
        read_results(tmp_path / "grid.csv")


def test_bits_per_weight_are_computed_from_sizes(tmp_path):
    path = write(tmp_path, ["4,8,1"], "vit_bits,llm_bits,score")
    results = read_results(path, sizes=parse_sizes("vit=200,llm=300,all=1000"))
    assert results.rows[0].metrics["bpw"] == pytest.approx((4 * 200 + 8 * 300 + 16 * 500) / 1000)
    for text, message in {
        "vit=200,llm=300": "all=... is missing",
        "vit=200,all=1000": "llm=... is missing",
        "vit=1,llm=2,q=3,all=1000": "Unknown part 'q'",
        "vit=900,llm=300,all=1000": "more parameters than the whole",
        "vit=x,llm=1,all=1": "not a number of parameters",
        "vit": "not of the form",
    }.items():
        with pytest.raises(InputError, match=message):
            read_results(path, sizes=parse_sizes(text))


# --- the command ---------------------------------------------------------------------------------
def test_an_import_is_a_study_like_any_other_and_a_second_one_adds_nothing(store_uri, capsys):
    write(".")
    command = ["import-results", "grid.csv", "--score", "cider", "--scores", "meteor"]
    command += ["--quantizer", "gptq", "--study", "grid"]
    main(command)
    assert "4 configurations imported" in capsys.readouterr().out
    (parent,) = runs(store_uri, "study")
    trials = runs(store_uri, "trial")
    assert len(trials) == 4
    trial = next(t for t in trials if t.info.run_name == "vit=4 llm=16")
    assert trial.data.params == {
        "bits.vit": "4", "bits.llm": "16", "width.vit": "04 bits", "width.llm": "16 bits",
        "quantizer.name": "gptq", "score.name": "cider",
    }  # fmt: skip
    assert trial.data.metrics == {"score": 1.2, "cider": 1.2, "meteor": 0.28, "bpw": 9}
    assert trial.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert trial.data.tags["mmq.allocation"] == "vit=4 llm=16"
    assert trial.info.status == parent.info.status == "FINISHED"
    note = parent.data.tags["mlflow.note.content"].splitlines()
    assert note[0] == "no quantized allocation of 3 keeps 99% of the score"
    client = MlflowClient(store_uri)
    assert {f.path for f in client.list_artifacts(parent.info.run_id)} >= {"front.json"}
    tags = client.get_experiment(parent.info.experiment_id).tags
    assert any(key.startswith("mlflow.sharedViewState.") for key in tags)

    write(".", (*reversed(ROWS), "16,3,1.0,0.2,7", "16,3,1.0,0.2,7"))
    main(command)
    out = capsys.readouterr().out
    assert "1 configurations imported; 4 were imported before; 1 rows are exact repeats" in out
    assert len(runs(store_uri, "trial")) == 5
    assert len(runs(store_uri, "study")) == 1


def test_the_same_rows_in_another_file_are_the_same_study(store_uri, capsys):
    for name in ("grid.csv", "copy.csv"):
        write(".", reversed(ROWS) if name == "copy.csv" else ROWS, name=name)
        main(["import-results", name, "--score", "cider"])
    assert "0 configurations imported; 4 were imported before" in capsys.readouterr().out
    assert len(runs(store_uri, "study")) == 1
    main(["import-results", "copy.csv", "--score", "cider", "--study", "copy"])
    assert len(runs(store_uri, "trial", "copy")) == 4


def test_all_invalid_rows_are_listed_and_the_others_imported_only_on_request(store_uri, capsys):
    Path("mlflow.db").unlink()  # whether one is made is the question
    bad = ("9,16,1,1,1", "4,,1,1,1", "4,16,nan,1,1", "4,16,x,1,1", "4.5,16,1,1,1", "4,16,1,1,1,7")
    write(".", (ROWS[0], *bad, ROWS[1]))
    command = ["import-results", "--file", "grid.csv", "--score", "cider"]
    with pytest.raises(SystemExit):
        main(command)
    err = capsys.readouterr().err
    assert "6 invalid rows, nothing was imported; fix them, or import the others with" in err
    for line, message in {
        3: "vit_bits: 9 is not one of [2, 3, 4, 5, 6, 7, 8, 16]",
        4: "llm_bits: empty",
        5: "cider: 'nan' is not a finite number",
        6: "cider: 'x' is not a finite number",
        7: "vit_bits: 4.5 is not a whole number",
        8: "it has more cells than the header",
    }.items():
        assert f"line {line}: {message}" in err
    assert not Path("mlflow.db").exists()
    main([*command, "--skip-bad-rows"])
    assert "6 invalid rows skipped" in capsys.readouterr().out
    assert len(runs(store_uri, "trial")) == 2


def test_a_study_never_mixes_results_of_different_origin(store_uri, capsys):
    write(".")
    command = ["import-results", "grid.csv", "--score", "cider", "--study", "grid"]
    main([*command, "--quantizer", "gptq"])
    with pytest.raises(SystemExit):
        main([*command, "--quantizer", "awq"])
    assert "has results of another model, task, data or quantizer" in capsys.readouterr().err
    client = MlflowClient(store_uri)
    (experiment,) = (e for e in client.search_experiments() if e.name == "mmq")
    client.create_run(experiment.experiment_id, tags={"mmq.kind": "study", "mmq.study": "own"})
    with pytest.raises(SystemExit):
        main(["import-results", "grid.csv", "--score", "cider", "--study", "own"])
    assert "'own' has trials that mmq ran" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--study", "a b"], ["--stduy", "x"], []])
def test_bad_options_end_before_anything_is_logged(store_uri, option):
    Path("mlflow.db").unlink()
    write(".")
    given = ["grid.csv", "--score", "cider", *option] if option else []
    with pytest.raises(SystemExit):
        main(["import-results", *given])
    assert not Path("mlflow.db").exists()
