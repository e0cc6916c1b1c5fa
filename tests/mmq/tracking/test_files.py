"""The predictions of a run, read back as MLflow's UI and the analysis do."""

import json

import official_files as official
import pytest
from PIL import Image

from mmq.contracts import FileImage, Prediction
from mmq.tracking.files import SHOWN_PREDICTIONS, write_predictions


@pytest.mark.parametrize("count", [1, 2])
def test_predictions_name_their_pictures_and_show_them_side_by_side(tmp_path, count):
    images = tuple(FileImage(tmp_path / "elsewhere" / f"{k}.jpg") for k in range(count))
    for number, image in enumerate(images):
        official.picture(image.path, number)
    write_predictions(tmp_path, [Prediction("7", images, "the same?", "yes", "no", 0.0)])
    (row,) = json.loads((tmp_path / "all_predictions.json").read_text())
    assert row["image"] == " + ".join(["0.jpg", "1.jpg"][:count])
    assert (row["sample_id"], row["text"], row["expected"]) == ("7", "yes", "no")
    table = json.loads((tmp_path / "predictions.json").read_text())
    (shown,) = [dict(zip(table["columns"], each, strict=True)) for each in table["data"]]
    with Image.open(tmp_path / shown["image"]["filepath"]) as thumbnail:
        assert thumbnail.size == (8 * count, 8)


def test_changed_and_wrong_predictions_come_first_with_the_unquantized_output(tmp_path):
    image = FileImage(tmp_path / "elsewhere" / "0.jpg")
    official.picture(image.path, 0)
    predictions = [
        Prediction(
            str(k), (image,), "what?", "cat" if k == 70 else "dog", "dog", float(k not in (7, 70))
        )
        for k in range(80)
    ]
    write_predictions(tmp_path, predictions, {str(k): "dog" for k in range(80)})
    table = json.loads((tmp_path / "predictions.json").read_text())
    rows = [dict(zip(table["columns"], each, strict=True)) for each in table["data"]]
    assert [row["sample"] for row in rows[:2]] == ["70: what?", "7: what?"]
    assert (rows[0]["prediction"], rows[0]["unquantized"]) == ("cat", "dog")
    assert table["columns"][0] == "sample"  # by which MLflow joins the runs' rows
    assert len({row["sample"] for row in rows}) == SHOWN_PREDICTIONS
