import json
import os
import shutil

import hub_files as hub
import official_files as official
import pytest

from mmq.cli import main


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Run the command in a folder of its own, and return its output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MMQ_DATA", raising=False)
    monkeypatch.setattr("signal.signal", lambda *arguments: None)

    def run(*arguments):
        main(["datasets", *arguments])
        return capsys.readouterr().out

    return run


def rows(text):
    return {row["name"]: row for row in json.loads(text)}


def test_data_sets_are_listed_where_they_are_found(tmp_path, call):
    official.vqav2(tmp_path / "data" / "vqa")
    official.gqa(tmp_path / "data" / "sets" / "gqa")
    official.karpathy_flickr(tmp_path / "data" / "a" / "b" / "too-deep")
    (
        tmp_path / "data" / "sets" / "gqa" / "questions1.2" / "train_balanced_questions.json"
    ).unlink()
    lines = {line.split()[0]: line.split() for line in call().splitlines() if line}
    assert lines["vqav2"] == ["vqav2", "vqa,", "short-answer", "data/vqa", "yes"]
    assert lines["gqa"] == ["gqa", "gqa,", "short-answer", "data/sets/gqa", "no"]
    assert lines["flickr30k"][-2:] == ["not", "found"]
    assert lines["scenes"][-1] == "(bundled)"
    assert "--layouts" in lines["Pass"]
    assert "flickr30k-images" in call("--layouts")
    assert "train_balanced_questions" not in call("--layouts")


def test_the_folder_is_an_option_a_variable_or_here(tmp_path, call, monkeypatch):
    official.vqav2(tmp_path / "here")
    assert rows(call("--json"))["vqav2"]["found"] == [
        {"folder": "here", "training": True, "lacking": []}
    ]
    official.coco_captions(tmp_path / "there")
    monkeypatch.setenv("MMQ_DATA", str(tmp_path / "there"))
    result = rows(call("--json"))
    assert result["vqav2"]["found"] == []
    assert result["coco-captions"]["found"][0]["folder"] == str(tmp_path / "there")
    assert len(rows(call("--json", "--root", str(tmp_path)))["vqav2"]["found"]) == 1


def test_circular_links_and_undecodable_names_do_not_stop_the_listing(tmp_path, call):
    official.vqav2(tmp_path / "data" / os.fsdecode(b"vq\xe4"))
    (tmp_path / "data" / "loop").symlink_to("loop")
    (tmp_path / "data" / "round").symlink_to(".")
    os.mkfifo(tmp_path / "data" / "pipe")
    assert "data/vq\\xe4" in call()


def test_a_subfolder_of_a_recognized_folder_is_not_listed_again(tmp_path, call):
    official.vqav2(tmp_path / "data" / "vqa", folder="Questions")
    result = rows(call("--json"))["vqav2"]["found"]
    assert [each["folder"] for each in result] == ["data/vqa"]


def test_tables_are_listed_unless_another_data_set_reads_them(tmp_path, call):
    hub.chartqa(tmp_path / "data" / "charts")
    (tmp_path / "data" / "mine").mkdir()
    (tmp_path / "data" / "mine" / "photos.csv").write_text("image,question,answer\n")
    result = rows(call("--json"))
    assert [place["folder"] for place in result["table"]["found"]] == ["data/mine"]
    assert [place["folder"] for place in result["chartqa"]["found"]] == ["data/charts"]


def test_trees_and_pages_are_printed_on_request(call):
    assert "cocodataset.org" not in call()
    text = call("--layouts")
    for page in ("cocodataset.org", "visualqa.org", "dorarad/gqa", "DenotationGraph", "karpathy"):
        assert page in text
    assert "scenes is not" not in text


def test_no_more_is_read_than_shows_whether_a_training_split_is_there(tmp_path, call, caplog):
    root = official.gqa(tmp_path / "data")
    path = root / "questions1.2" / "train_balanced_questions.json"
    path.write_bytes(path.read_bytes()[:2000])  # the first question is whole
    assert rows(call("--json"))["gqa"]["found"][0]["training"] is True
    path.write_text("no JSON")
    assert rows(call("--json"))["gqa"]["found"][0]["training"] is False
    assert "train_balanced_questions.json is not readable JSON" in caplog.text


def test_a_training_split_without_pictures_does_not_count(tmp_path, call):
    root = official.gqa(tmp_path / "data")
    for path in (root / "images").glob("2370*.jpg"):
        path.unlink()
    assert rows(call("--json"))["gqa"]["found"][0]["training"] is False


@pytest.mark.parametrize("empty", [True, False])
def test_missing_files_of_a_recognized_folder_are_named(tmp_path, call, empty):
    root = official.vqav2(tmp_path / "data")
    shutil.rmtree(root / "val2014")
    if empty:
        (root / "val2014").mkdir()
    (root / "v2_mscoco_val2014_annotations.json").unlink()
    (line,) = [line for line in call().splitlines() if line.startswith("vqav2 ")]
    assert line.endswith("yes             v2_mscoco_val2014_annotations.json, val2014/*.jpg")


@pytest.mark.parametrize(
    ("arguments", "variable", "message"),
    [
        (["--root", "nowhere"], "", "root: there is no folder 'nowhere'"),
        (["--root", 300 * "a"], "", "root: there is no folder 'aaa"),
        ([], "nowhere", "MMQ_DATA: there is no folder 'nowhere'"),
        (["--layout", "x"], "", "Unknown option 'layout'. Did you mean 'layouts'"),
    ],
)
def test_bad_input_is_refused(call, monkeypatch, capsys, arguments, variable, message):
    monkeypatch.setenv("MMQ_DATA", variable)
    with pytest.raises(SystemExit) as caught:
        call(*arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
