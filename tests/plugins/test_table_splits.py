"""Tables whose rows have splits are scored on one and calibrated on another."""

import json

import hub_files as hub
import pytest
from mmq_plugins.datasets.split_files import list_files
from mmq_plugins.datasets.table import Table
from table_files import sheet

from mmq.contracts import Splits
from mmq.testing import DatasetContract


def imagefolder(root, column="", splits=("train", "test")):
    """One table for the pictures of two folders."""
    rows = []
    for split in splits:
        for k in range(2):
            name = f"{split}/{k}.png" if not column else f"{split}{k}.png"
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_bytes(hub.png())
            row = {"file_name": name, "question": f"{split} {k}?", "answer": "x"}
            rows.append(row | ({column: split} if column else {}))
    return sheet(root, "\n".join(map(json.dumps, rows)), "metadata.jsonl")


class TestSplitColumn(DatasetContract):
    def make(self):
        return Table()

    def root(self, tmp_path):
        imagefolder(tmp_path, "Split")
        return tmp_path


class TestSplitFolders(TestSplitColumn):
    def root(self, tmp_path):
        imagefolder(tmp_path)
        return tmp_path


@pytest.mark.parametrize("column", ["", "split"])
def test_the_rows_of_each_split_are_read_and_reported(column, tmp_path, caplog):
    path = imagefolder(tmp_path, column, ("train", "val"))
    table = Table("short-answer")
    for root in (path, tmp_path):
        assert table.splits(root) == Splits("validation", "train")
        for split, name in (("validation", "val"), ("train", "train")):
            assert [s.question for s in table.read(root, split)] == [f"{name} 0?", f"{name} 1?"]
    assert "the splits train 2, validation 2; the rows of validation are scored" in caplog.text


@pytest.mark.parametrize("splits", [("train", "other"), ("val", "test"), ("train", "training")])
def test_without_training_and_evaluation_rows_all_are_scored(splits, tmp_path):
    path = imagefolder(tmp_path, "split", splits)
    table = Table("short-answer")
    assert table.splits(path).calibration is None
    assert len(list(table.read(path, path.name))) == 4


def test_pictures_of_an_imagefolder_may_be_in_several_columns(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(hub.png())
    row = {"before_file_name": "a.png", "after_file_name": "b.png", "question": "Q?"}
    path = sheet(tmp_path, json.dumps(row | {"answer": "x"}), "metadata.jsonl")
    (sample,) = Table("short-answer").read(path, path.name)
    assert [image.name.rpartition("/")[2] for image in sample.images] == ["a.png", "b.png"]


def test_a_split_folder_that_is_a_link_to_its_parent_lists_no_file_twice(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "x.parquet").touch()
    for name in ("test", "val"):
        (tmp_path / name).symlink_to(tmp_path)
    files = list_files(tmp_path, (".parquet",), 0, ("train", "test", "val"))
    assert files == [tmp_path / "train" / "x.parquet"]


def test_the_lock_of_an_open_sheet_is_no_table(tmp_path):
    imagefolder(tmp_path)
    (tmp_path / "~$metadata.xlsx").write_bytes(b"lock")
    assert Table("short-answer").splits(tmp_path) == Splits("test", "train")
