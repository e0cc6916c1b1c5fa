"""Several tasks on the command line, and options with one value per task."""

import pytest

from mmq.errors import InputError
from mmq.task_names import by_task, fields_by_task, mix_by_task, parse_tasks

LABELS = ["vqa", "lmms-docvqa"]


def test_a_colon_in_a_name_becomes_a_hyphen_in_the_label():
    assert parse_tasks("vqa,lmms:docvqa") == {"vqa": "vqa", "lmms-docvqa": "lmms:docvqa"}


def test_values_are_given_for_all_tasks_in_order_or_by_label():
    assert by_task("limit", "5", LABELS, "500") == {"vqa": "5", "lmms-docvqa": "5"}
    assert by_task("limit", "5,6", LABELS, "500") == {"vqa": "5", "lmms-docvqa": "6"}
    named = by_task("limit", "lmms:docvqa=6,vqa=5", LABELS, "500")
    assert named == {"vqa": "5", "lmms-docvqa": "6"}


def test_a_folder_with_a_comma_in_its_name_is_one_value(tmp_path):
    folder = tmp_path / "a,b"
    folder.mkdir()
    assert by_task("data", str(folder), LABELS, "F") == dict.fromkeys(LABELS, str(folder))


def test_a_mix_of_calibration_data_is_for_all_tasks_or_for_one():
    mix = "a.csv:0.7,b/:0.3"
    assert mix_by_task("calibration-data", mix, LABELS, "a") == dict.fromkeys(LABELS, mix)
    named = mix_by_task("calibration-data", f"vqa={mix},lmms-docvqa=c", LABELS, "a")
    assert named == {"vqa": mix, "lmms-docvqa": "c"}


def test_fields_with_a_label_are_for_that_task_alone():
    fields = fields_by_task("image=photo,vqa.answers=label", LABELS)
    assert fields == {"vqa": "image=photo,answers=label", "lmms-docvqa": "image=photo"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1,2,3", "3 values for 2 tasks.*vqa,lmms-docvqa"),
        ("vqa=1", "no value for lmms-docvqa; write vqa=500,lmms-docvqa=500"),
        ("vqa=1,vqa=2,lmms-docvqa=3", "vqa is given twice"),
    ],
)
def test_values_that_do_not_fit_the_tasks_are_refused(text, problem):
    with pytest.raises(InputError, match=problem):
        by_task("limit", text, LABELS, "500")


def test_an_empty_task_is_refused():
    with pytest.raises(InputError, match="empty name"):
        parse_tasks("vqa,")
