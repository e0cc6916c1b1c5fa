"""Every picture is opened before a model is loaded; unreadable ones are named."""

import official_files as official
import pytest

from mmq.config import TaskOptions
from mmq.data.draw import draw_data
from mmq.errors import InputError


def test_a_picture_that_cannot_be_opened_is_named_with_its_sample(tmp_path):
    root = official.vqav2(tmp_path)
    path = root / "val2014" / "COCO_val2014_000000000002.jpg"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="0002.jpg cannot be .*; it belongs to the sample 2000"):
        draw_data(TaskOptions(task="vqa", data=str(root)), "vqa", calibrated=False)
