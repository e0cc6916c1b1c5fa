import json
import shutil

import official_files as official
import pytest
from mmq_plugins.datasets.coco_captions import CocoCaptions
from mmq_plugins.datasets.vqav2 import VqaV2
from mmq_plugins.embedded import scene_files
from mmq_plugins.embedded.scene_files import write_scenes

from mmq.contracts import QuestionSample
from mmq.data.image_checks import check_images
from mmq.data.source import find_source
from mmq.errors import InputError

QUESTIONS = "v2_OpenEnded_mscoco_val2014_questions.json"
ANSWERS = "v2_mscoco_val2014_annotations.json"
CAPTIONS = "annotations/captions_val2014.json"


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """Twelve questions on six pictures, which have five captions each."""
    folder, pictures = tmp_path_factory.mktemp("coco"), {"val2014": range(1, 7)}
    return official.coco_captions(official.vqav2(folder, pictures), pictures)


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "data")


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_questions_come_with_ten_answers_and_their_picture(folder):
    samples = official.samples_of(VqaV2(), folder)
    assert len(samples) == 12
    assert all(isinstance(s, QuestionSample) and len(s.answers) == 10 for s in samples)
    assert samples[0].image.path == folder / "val2014" / "COCO_val2014_000000000001.jpg"
    check_images(samples)


def test_each_picture_has_five_captions(folder):
    samples = official.samples_of(CocoCaptions(), folder)
    assert [len(s.references) for s in samples] == [5] * 6
    assert all(len(set(s.references)) == 5 for s in samples)


def test_pictures_without_captions_are_left_out_and_counted(folder, caplog):
    edit(folder / CAPTIONS, lambda c: c.update(annotations=c["annotations"][10:]))
    assert len(official.samples_of(CocoCaptions(), folder)) == 4
    assert "2 of 6 pictures have no caption" in caplog.text


def test_val2017_layout_is_read_too(folder):
    (folder / CAPTIONS).rename(folder / "annotations" / "captions_val2017.json")
    (folder / "val2014").rename(folder / "val2017")
    samples = official.samples_of(CocoCaptions(), folder)
    check_images(samples)


def test_the_data_set_is_found_by_its_files(folder):
    assert len(find_source("vqa", str(folder)).samples()) == 12
    assert len(find_source("captioning", str(folder)).samples()) == 6


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (ANSWERS, lambda c: c.clear(), "has no list 'annotations'"),
        (ANSWERS, lambda c: c["annotations"].clear(), "the list 'annotations' is empty"),
        (ANSWERS, lambda c: c["annotations"].pop(2), "the id 2000 has no answers"),
        (ANSWERS, lambda c: c["annotations"][1].pop("answers"), r"tions\[1\] has no 'answers'"),
        (ANSWERS, lambda c: c["annotations"][1]["answers"][0].clear(), "an answer without text"),
        (QUESTIONS, lambda c: c["questions"][3].pop("question"), r"ions\[3\] has no 'question'"),
        (QUESTIONS, lambda c: c["questions"][0].update(image_id="../../x.jpg"), "is outside"),
        (QUESTIONS, lambda c: c["questions"][0].update(image_id="/etc/passwd"), "is outside"),
    ],
)  # fmt: skip
def test_malformed_vqa_files_are_refused_with_the_place(folder, file, change, message):
    edit(folder / file, change)
    with pytest.raises(InputError, match=message):
        official.samples_of(VqaV2(), folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("images"), "has no list 'images'"),
        (lambda c: c["images"].pop(0), r"annotations\[0\] names image 1"),
        (lambda c: c["annotations"][4].update(caption=7), r"annotations\[4\] has no 'caption'"),
        (lambda c: c["images"][2].update(file_name="../secret.jpg"), "is outside"),
        (lambda c: c["images"][2].update(file_name="a\0b.jpg"), "is not a file name"),
    ],
)
def test_malformed_caption_files_are_refused_with_the_place(folder, change, message):
    edit(folder / CAPTIONS, change)
    with pytest.raises(InputError, match=message):
        official.samples_of(CocoCaptions(), folder)


def test_a_missing_or_invalid_json_file_is_named(folder):
    (folder / ANSWERS).write_text("{")
    with pytest.raises(InputError, match="is not readable JSON"):
        official.samples_of(VqaV2(), folder)
    (folder / ANSWERS).unlink()
    with pytest.raises(InputError, match="does not exist"):
        official.samples_of(VqaV2(), folder)


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "text"])
def test_a_missing_or_unreadable_picture_is_named(folder, damage):
    path = folder / "val2014" / "COCO_val2014_000000000003.jpg"
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"empty": b"", "cut": content[:-99], "text": b"not a picture"}[damage])
    samples = official.samples_of(VqaV2(), folder)
    with pytest.raises(InputError, match="000000000003.jpg (does not exist|cannot be read)"):
        check_images(samples, quiet=True)


def test_a_missing_folder_prints_the_expected_tree_and_the_download_page(tmp_path):
    with pytest.raises(InputError) as caught:
        find_source("vqa", str(tmp_path / "nowhere"))
    assert QUESTIONS in str(caught.value)
    assert "https://visualqa.org/download.html" in str(caught.value)
    with pytest.raises(InputError, match="contains no data set for the task 'vqa'"):
        find_source("vqa", str(tmp_path))


@pytest.mark.parametrize(
    ("task", "gone", "page"),
    [
        ("vqa", ANSWERS, "https://visualqa.org/download.html"),
        ("vqa", "val2014/*.jpg", "https://visualqa.org/download.html"),
        ("captioning", "val2014/*.jpg", "https://cocodataset.org/#download"),
    ],
)
def test_missing_files_of_a_found_folder_print_the_expected_tree_and_the_download_page(
    folder, task, gone, page
):
    for path in folder.glob(gone):
        path.unlink()
    with pytest.raises(InputError, match="expected layout") as caught:
        find_source(task, str(folder)).samples()
    assert f"lacks {gone}. " in str(caught.value)
    assert page in str(caught.value)


def test_a_data_set_for_another_task_is_refused(folder):
    with pytest.raises(InputError, match="'coco-captions' does not support the task 'vqa'"):
        find_source("vqa", str(folder), dataset="coco-captions")


def test_an_interrupted_write_leaves_no_folder(tmp_path, monkeypatch):
    def interrupt(scene):
        raise KeyboardInterrupt

    monkeypatch.setattr("mmq_plugins.embedded.scene_files.render", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path / "scenes")
    assert not (tmp_path / "scenes").exists()


def test_several_processes_may_write_the_scenes_at_once(tmp_path, monkeypatch, caplog):
    folder, small = tmp_path / "scenes", {"scenes": 2, "groups": 1, "training": 1}
    write_all = scene_files._write_all

    def slowly(*rest):
        monkeypatch.setattr(scene_files, "_write_all", write_all)
        write_scenes(folder, **small)  # another process is first
        write_all(*rest)

    monkeypatch.setattr(scene_files, "_write_all", slowly)
    write_scenes(folder, **small)
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]
    assert not caplog.text


def test_scenes_that_were_changed_are_written_again(tmp_path, caplog):
    small = {"scenes": 4, "groups": 1, "training": 2}
    write_scenes(folder := tmp_path / "scenes", **small)
    content = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    picture, *_, captions = sorted(content, key=lambda path: (path.suffix != ".jpg", path))
    removed = folder / "gqa" / "images" / "n1.jpg"
    picture.write_bytes(content[picture][:-1])
    captions.write_text(captions.read_text().replace("red", "blue").replace("yes", "no"))
    removed.unlink()
    removed.mkdir()
    write_scenes(folder, **small)
    assert {path: path.read_bytes() for path in content} == content
    assert "damaged" in caplog.text
    caplog.clear()
    (folder / "checksums.json").unlink()  # as before there were any
    picture.write_bytes(b"")
    write_scenes(folder, **small)
    assert {path: path.read_bytes() for path in content} == content
    assert f"{picture} is damaged" in caplog.text
