"""A checkpoint whose files do not fit together is refused, never read without its pictures."""

import json
import shutil

import pytest
from asking import ask
from mmq_plugins.embedded import scenes

from mmq.errors import InputError
from mmq.models.loading import load_model, locate

PICTURE = scenes.render(scenes.make_scene(0, "test"))


def changed(folder, name, file, **values):
    """A copy of a bundled checkpoint with other values in a JSON file; None removes one."""
    shutil.copytree(locate(name), folder)
    path = folder / file
    path.chmod(0o644)
    facts = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in facts.items() if v is not None}))
    return str(folder)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("embedded-blip2", {"num_query_tokens": None}, "have [0] image tokens, but a picture"),
        ("embedded-llava", {"patch_size": 32}, "has 16 features: the checkpoint's processor"),
    ],
)
def test_texts_without_room_for_their_picture_are_refused(tmp_path, name, values, message):
    model = load_model(changed(tmp_path / "m", name, "processor_config.json", **values))
    with pytest.raises(InputError) as caught:
        ask(model, [PICTURE], ["is there a red star?"])
    assert message in str(caught.value)


def test_an_image_token_in_a_question_is_refused():
    model = load_model("embedded-llava")
    # InputError is a ValueError, and what the processor of transformers 5 raises by itself is one
    with pytest.raises(ValueError, match="contains an image token|total number of <image> tokens"):
        ask(model, [PICTURE], ["what is an <image>?"])


@pytest.mark.parametrize(
    ("name", "file", "key", "message"),
    [
        ("embedded-blip2", "config.json", "image_token_index", "names no image token"),
        ("embedded-llava", "processor_config.json", "patch_size", "has no patch_size"),
    ],
)
def test_a_checkpoint_that_lacks_a_setting_is_refused_when_it_is_loaded(
    tmp_path, name, file, key, message
):
    with pytest.raises(InputError, match=message):
        load_model(changed(tmp_path / "m", name, file, **{key: None}))
