"""What a run keeps of its predictions, read back as MLflow's UI and the analysis do."""

import json

import official_files as official
import pytest
from PIL import Image

from mmq.contracts import FileImage, Prediction
from mmq.tracking.files import write_predictions


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
