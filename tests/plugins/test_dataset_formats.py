"""Every official layout, its training split, and errors for malformed files."""

import json
import shutil

import official_files as official
import pytest
from mmq_plugins.datasets.coco_captions import CocoCaptions
from mmq_plugins.datasets.coco_karpathy import CocoKarpathy
from mmq_plugins.datasets.flickr30k import Flickr30k
from mmq_plugins.datasets.gqa import Gqa
from mmq_plugins.datasets.vqav2 import VqaV2

from mmq.cli.datasets import has_training_split
from mmq.contracts import CaptionSample, FileImage, QuestionSample
from mmq.data.image_checks import check_images
from mmq.errors import InputError

# layout, reader, task, samples, training samples
LAYOUTS = {
    "coco": (official.coco_captions, CocoCaptions(), "captioning", 3, 5),
    "karpathy coco": (official.karpathy_coco, CocoKarpathy(), "captioning", 3, 6),
    "karpathy coco retrieval": (official.karpathy_coco, CocoKarpathy(), "retrieval", 3, 6),
    "lavis coco": (official.lavis_coco, CocoKarpathy(), "captioning", 3, 4),
    "karpathy flickr": (official.karpathy_flickr, Flickr30k(), "retrieval", 3, 4),
    "lavis flickr": (official.lavis_flickr, Flickr30k(), "retrieval", 3, 4),
    "token flickr": (official.token_flickr, Flickr30k(), "retrieval", 3, 4),
    "gqa": (official.gqa, Gqa(), "gqa", 6, 8),
    "vqav2": (official.vqav2, VqaV2(), "vqa", 6, 10),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_official_layout_is_recognized_and_read(tmp_path, layout):
    write, reader, task, count, _ = LAYOUTS[layout]
    assert not reader.recognizes(tmp_path)
    root = write(tmp_path)
    assert reader.recognizes(root)
    samples = official.samples_of(reader, root)
    assert len({s.id for s in samples}) == len(samples) == count
    check_images(samples)
    if isinstance(samples[0], CaptionSample):
        assert all(len(s.references) == 5 for s in samples)
        assert samples[0].references[1].startswith("a cat sits on mat 1")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_calibration_comes_seeded_from_the_training_split(tmp_path, layout):
    write, reader, task, _, train = LAYOUTS[layout]
    root = write(tmp_path)
    everything = official.pairs_of(reader, root, 128, seed=0)
    assert len(everything) == train
    assert not {s.image for s in everything} & {s.image for s in official.samples_of(reader, root)}
    check_images(everything)
    part = official.pairs_of(reader, root, 2, seed=3)
    assert part == official.pairs_of(reader, root, 2, seed=3)
    assert len(part) == 2
    assert all(sample in everything for sample in part)
    assert {s.id for k in range(20) for s in official.pairs_of(reader, root, 2, seed=k)} == {
        s.id for s in everything
    }
    assert has_training_split(reader, root)


# what versions before this one drew for the seeds 0, 1 and 2: their studies stay valid
DRAWS = {
    "coco": ["102 104", "101 103", "101 104"],
    "karpathy coco": ["391900 391902", "391899 391903", "391899 391902"],
    "lavis coco": ["100 102", "101 103", "101 103"],
    "karpathy flickr": ["1007129819 1007129821", *["1007129820 1007129822"] * 2],
    "lavis flickr": ["1007129819 1007129821", *["1007129820 1007129822"] * 2],
    "token flickr": ["1007129819 1007129821", *["1007129820 1007129822"] * 2],
    "gqa": [
        "201323707992 201323707994",
        "201323707991 201323707995",
        "201323707991 201323707994",
    ],
    "vqav2": ["101000 102000", "100001 102001", "100001 102000"],
}


@pytest.mark.parametrize("layout", DRAWS)
def test_a_seed_draws_the_pairs_that_it_always_drew(tmp_path, layout):
    write, reader, *_ = LAYOUTS[layout]
    root = write(tmp_path)
    pairs = [official.pairs_of(reader, root, 2, seed) for seed in range(3)]
    assert [" ".join(sample.id for sample in each) for each in pairs] == DRAWS[layout]


@pytest.mark.parametrize("layout", ["lavis coco", "lavis flickr", "token flickr"])
def test_captions_of_a_picture_need_not_follow_one_another(tmp_path, layout):
    write, reader, task, *_ = LAYOUTS[layout]
    root = write(tmp_path)

    def read():
        everything = (
            official.samples_of(reader, root),
            official.pairs_of(reader, root, 128, seed=0),
        )
        return [{s.id: (s.image, set(s.references)) for s in samples} for samples in everything]

    in_order = read()
    for path in [*root.rglob("*.json"), *root.glob("*.token")]:
        text = path.read_text()
        if path.suffix == ".json":
            rows = [
                row | {"caption": caption}
                for row in json.loads(text)
                for caption in ([row["caption"]] if "image_id" in row else row["caption"])
            ]
            path.write_text(json.dumps(rows[::2] + rows[1::2]))
        else:
            lines = text.splitlines()
            path.write_text("\n".join(lines[::2] + lines[1::2]))
    assert read() == in_order


def test_a_test_picture_whose_captions_are_given_twice_is_refused(tmp_path):
    root = official.lavis_coco(tmp_path)
    path = root / "annotations" / "coco_karpathy_test.json"
    path.write_text(json.dumps(2 * json.loads(path.read_text())))
    with pytest.raises(InputError, match=r"\[3\] has captions of val2014/COCO_.* again"):
        official.samples_of(CocoKarpathy(), root)


def test_text_files_may_begin_with_a_byte_order_mark_and_have_blank_lines(tmp_path):
    root = official.token_flickr(tmp_path)
    expected = official.samples_of(Flickr30k(), root)
    for path in (root / "results_20130124.token", root / "test.txt"):
        path.write_text("\ufeff" + path.read_text().replace("\n", "\n\n") + "\n", "utf-8")
    assert official.samples_of(Flickr30k(), root) == expected


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_annotations_or_pictures_there_is_no_training_split(tmp_path, layout):
    write, reader, task, *_ = LAYOUTS[layout]
    assert official.pairs_of(reader, tmp_path, 128, seed=0) is None
    root = write(tmp_path)
    if "karpathy" not in layout:  # its one file has all splits
        for path in [*root.rglob("*train*.json"), *root.glob("train.txt")]:
            path.unlink()
        assert official.pairs_of(reader, root, 128, seed=0) is None
        assert not has_training_split(reader, root)
        assert official.samples_of(reader, root)
    write(root)
    for folder in ("images", "val2014", "train2014", "flickr30k-images", "flickr30k_images"):
        shutil.rmtree(root / folder, ignore_errors=True)
    assert official.pairs_of(reader, root, 128, seed=0) is None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_its_pictures_there_is_no_training_split(tmp_path, layout):
    """Copies for evaluation have all annotations, but the test pictures only."""
    write, reader, task, count, _ = LAYOUTS[layout]
    root = write(tmp_path)
    pictures = [s.image.path for s in official.pairs_of(reader, root, 128, seed=0)]
    for path in set(pictures):
        path.unlink()
    assert official.pairs_of(reader, root, 128, seed=0) is None
    assert not has_training_split(reader, root)
    check_images(official.samples_of(reader, root))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_training_pictures_that_are_missing_are_not_drawn(tmp_path, layout, caplog):
    write, reader, task, *_, train = LAYOUTS[layout]
    root = write(tmp_path)
    pictures = [s.image.path for s in official.pairs_of(reader, root, 128, seed=0)]
    assert not caplog.text
    pictures[-1].unlink()
    pictures[0].unlink(missing_ok=True)
    pictures[0].symlink_to(tmp_path / "swept away")
    left = [path for path in pictures if path not in (pictures[0], pictures[-1])]
    assert [s.image.path for s in official.pairs_of(reader, root, 128, seed=0)] == left
    assert f"{train - len(left)} of {train} training samples have no picture" in caplog.text
    assert has_training_split(reader, root)
    for seed in range(5):
        check_images(official.pairs_of(reader, root, 2, seed))


def test_without_train2014_karpathys_calibration_is_drawn_from_restval(tmp_path):
    root = official.karpathy_coco(tmp_path)
    shutil.rmtree(root / "train2014")
    drawn = official.pairs_of(CocoKarpathy(), root, 128, seed=0)
    assert [s.image.path.parent.name for s in drawn] == ["val2014"] * 2
    content = json.loads((root / "dataset_coco.json").read_text())
    content["images"] = [row for row in content["images"] if row["split"] != "restval"]
    official.dump(root / "dataset_coco.json", content)
    assert official.pairs_of(CocoKarpathy(), root, 128, seed=0) is None


@pytest.mark.parametrize(
    ("folder", "prefix"),
    [
        ("", ""),
        ("annotations", "images"),
        ("Questions", "Images/mscoco"),
        ("questions", "coco/images"),
    ],
)
def test_vqav2_is_found_where_its_archives_are_unpacked_to(tmp_path, folder, prefix):
    root = official.vqav2(tmp_path, folder=folder, prefix=prefix)
    assert VqaV2().recognizes(root)
    check_images(official.samples_of(VqaV2(), root))
    assert len(official.pairs_of(VqaV2(), root, 128, 0)) == 10


@pytest.mark.parametrize("folder", ["", "questions", "questions1.2"])
def test_gqa_questions_have_one_answer_and_their_types(tmp_path, folder):
    root = official.gqa(tmp_path, questions=folder)
    first = official.samples_of(Gqa(), root)[0]
    assert first == QuestionSample(
        "20131613130", "n161313", (FileImage(root / "images" / "n161313.jpg"),),
        "Is the sky dark 0?", ("yes",),
        "", (("structural", "verify"), ("semantic", "attr")),
    )  # fmt: skip


def test_gqa_questions_without_types_are_read(tmp_path):
    root = official.gqa(tmp_path, questions="")
    path = root / "testdev_balanced_questions.json"
    content = json.loads(path.read_text())
    for row, types in zip(content.values(), [None, {}, {"semantic": None}], strict=False):
        row["types"] = types
    official.dump(path, content)
    assert [s.types for s in official.samples_of(Gqa(), root)][:3] == [(), (), ()]


def test_val2017_is_never_calibrated_with_its_own_pictures(tmp_path):
    """train2017 holds most of val2014, so that only train2014 belongs to val2014."""
    root = official.coco_captions(tmp_path, {"val2014": range(3), "train2017": range(5)})
    assert official.pairs_of(CocoCaptions(), root, 128, 0) is None
    official.coco_captions(tmp_path, {"val2017": range(3), "train2014": range(100, 102)})
    assert len(official.samples_of(CocoCaptions(), root)) == 3
    assert len(official.pairs_of(CocoCaptions(), root, 128, 0)) == 5
    shutil.rmtree(root / "train2017")
    assert len(official.pairs_of(CocoCaptions(), root, 128, 0)) == 2


def test_the_split_whose_pictures_are_there_is_read(tmp_path):
    root = official.coco_captions(tmp_path, {"val2014": range(3), "val2017": range(5)})
    assert len(official.samples_of(CocoCaptions(), root)) == 5
    shutil.rmtree(root / "val2017")
    samples = official.samples_of(CocoCaptions(), root)
    assert len(samples) == 3
    check_images(samples)


def test_pictures_may_be_links_of_a_download_cache(tmp_path):
    root = official.vqav2(tmp_path / "data")
    (root / "val2014").rename(tmp_path / "blobs")
    (root / "val2014").mkdir()
    for path in (tmp_path / "blobs").iterdir():
        (root / "val2014" / path.name).symlink_to(path)
    check_images(official.samples_of(VqaV2(), root))


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("layout", "file", "edit", "message"),
    [
        ("karpathy coco", "dataset_coco.json", lambda c: c.pop("images"), "no list 'images'"),
        ("karpathy coco", "dataset_coco.json", lambda c: c["images"][1].pop("filename"),
         r"images\[1\] has no 'filename' of type str"),
        ("karpathy coco", "dataset_coco.json", lambda c: c["images"][2].update(sentences=[]),
         r"images\[2\] has no sentences"),
        ("karpathy flickr", "dataset_flickr30k.json",
         lambda c: c["images"][0]["sentences"][3].update(raw=None),
         r"a sentence of images\[0\] has no 'raw' of type str"),
        ("karpathy flickr", "dataset_flickr30k.json",
         lambda c: c["images"][0].update(filename="../x.jpg"), "is outside"),
        ("karpathy coco", "dataset_coco.json",
         lambda c: c["images"][0].update(filepath=".."), "is outside"),
        ("lavis coco", "annotations/coco_karpathy_test.json", lambda c: c.clear(),
         "is an empty list"),
        ("lavis coco", "annotations/coco_karpathy_test.json", lambda c: c[1].update(caption=[7]),
         r"\[1\] has a caption without text"),
        ("lavis flickr", "annotations/flickr30k_test.json", lambda c: c[2].pop("image"),
         r"\[2\] has no 'image' of type str"),
        ("gqa", "questions1.2/testdev_balanced_questions.json", lambda c: c.clear(),
         "has no entries"),
        ("gqa", "questions1.2/testdev_balanced_questions.json",
         lambda c: c["20131613132"].pop("answer"), "entry '20131613132' has no 'answer'"),
        ("gqa", "questions1.2/testdev_balanced_questions.json",
         lambda c: c["20131613132"].update(imageId="../1"), "is outside"),
    ],
)  # fmt: skip
def test_malformed_files_are_refused_with_the_place(tmp_path, layout, file, edit, message):
    write, reader, task, *_ = LAYOUTS[layout]
    root = write(tmp_path)
    change(root / file, edit)
    with pytest.raises(InputError, match=message):
        official.samples_of(reader, root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1007129816.jpg#0\ta man\nno tab\n", "line 2 is not NAME.jpg#K, tab, caption"),
        ("1007129816.jpg#0\ta man\n", "has no captions for the picture 100712981[78]"),
        (b"1007129816.jpg#0\t\xff\n", "is not UTF-8"),
    ],
)
def test_a_malformed_token_file_is_refused(tmp_path, text, message):
    root = official.token_flickr(tmp_path)
    content = text if isinstance(text, bytes) else text.encode()
    (root / "results_20130124.token").write_bytes(content)
    with pytest.raises(InputError, match=message):
        official.samples_of(Flickr30k(), root)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "token flickr"])
@pytest.mark.parametrize("damage", ["cut", "text", "missing"])
def test_a_cut_or_missing_annotation_file_is_named(tmp_path, layout, damage):
    write, reader, task, *_ = LAYOUTS[layout]
    root = write(tmp_path)
    for path in root.rglob("*.json"):
        content = path.read_bytes()
        path.unlink()
        if damage != "missing":
            path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"<html>")
    expected = "does not exist" if damage == "missing" else "is not readable JSON"
    with pytest.raises(InputError, match=expected):
        official.samples_of(reader, root)
