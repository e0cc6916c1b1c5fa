import logging
from pathlib import Path

import official_files as official
import pytest

from mmq.contracts import BytesImage, CaptionSample, Dataset, FileImage, QuestionSample, Splits
from mmq.data.image_checks import check_images
from mmq.data.source import Source, find_source, fingerprint_samples, limited
from mmq.errors import InputError


@pytest.mark.parametrize(
    ("limit", "total", "expected"),
    [
        ("10%", 214_354, 21_435),
        ("10 %", 214_354, 21_435),
        ("0", 70, 70),
        (0, 70, 70),
        (50, 70, 50),
        ("50", 70, 50),
        ("500", 70, 70),
        ("100%", 70, 70),
        ("0.1%", 70, 1),
        ("29%", 100, 29),  # 0.29 * 100 is 28.999999999999996
    ],
)
def test_a_limit_is_a_number_or_a_share(limit, total, expected):
    assert limited(limit, total) == expected


def test_a_limit_beyond_the_set_is_reported_with_both_numbers(caplog):
    assert limited("500", 70) == 70
    assert "limit: 500, but there are only 70 samples; all are scored" in caplog.text
    caplog.clear()
    assert [limited("70", 70), limited("0", 70), limited("100%", 70), limited("5", 0)]
    assert not caplog.text


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("-1", "limit: -1 is negative"),
        ("-10%", "limit: -10% is negative"),
        ("0%", "'0%' is not more than 0% and at most 100%"),
        ("101%", "at most 100%"),
        ("many", "'many' is neither a number of samples nor a percentage; write 500, 10%"),
        ("", "'' is neither"),
        ("%", "'%' is neither"),
        ("10.5", "'10.5' is neither"),
        ("1e3", "'1e3' is neither"),
        ("nan%", "'nan%' is neither"),
    ],
)
def test_nonsense_as_a_limit_is_refused(limit, message):
    with pytest.raises(InputError, match=message):
        limited(limit, 100)


def test_a_folder_that_several_data_sets_read_is_named_with_the_choice(tmp_path, caplog):
    root = official.karpathy_coco(official.coco_captions(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert find_source("captioning", str(root)).name == "coco-captions"
    assert "can be read as coco-captions or coco-karpathy" in caplog.text
    caplog.clear()
    source = find_source("captioning", str(root), dataset="coco-karpathy")
    assert source.name == "coco-karpathy"
    assert not caplog.text


def test_a_disk_error_of_the_bundled_data_is_not_taken_for_a_missing_folder(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MMQ_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(NotADirectoryError):
        find_source("vqa", "scenes").samples()


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b", "loop"])
def test_a_path_that_is_not_a_folder_is_refused_by_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    with pytest.raises(InputError, match="data: there is no folder '"):
        find_source("captioning", name)


def test_a_file_that_is_not_a_table_is_refused_with_the_layouts(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        InputError, match=r"(?s)contains no data set for the task.*\n\n.*FILE\.csv"
    ):
        find_source("captioning", str(tmp_path / "file"))


def test_karpathys_archive_is_read_by_the_pictures_that_are_there(tmp_path):
    """caption_datasets.zip unpacks to dataset_coco.json and dataset_flickr30k.json together."""
    official.karpathy_coco(tmp_path / "other")
    root = official.karpathy_flickr(tmp_path / "data")
    (tmp_path / "other" / "dataset_coco.json").rename(root / "dataset_coco.json")
    assert find_source("retrieval", str(root)).name == "flickr30k"


def test_a_duplicate_sample_is_refused(tmp_path):
    root = official.vqav2(tmp_path, {"val2014": [1, 2, 1]})
    places = r"annotations\[0\] .*; annotations\[4\]"
    with pytest.raises(InputError, match=f"the question_id 1000 appears twice: {places}"):
        find_source("vqa", str(root)).samples()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [("1", "a", "a.jpg"), ("1", "b", "b.jpg")],
            "two samples with the id 1, on a.jpg and b.jpg",
        ),
        (
            [("1", "a", "a.jpg"), ("2", "a", "b.jpg")],
            "two pictures with the id a, a.jpg and b.jpg",
        ),
        ([("1", "a", "a.jpg"), ("2", "b", "a.jpg")], "the picture a.jpg under two ids, a and b"),
    ],
)
def test_ids_that_a_plugin_gives_twice_are_refused_with_both_pictures(rows, message):
    class Reader(Dataset):
        tasks = ("captioning",)
        layout = ""

        def splits(self, root):
            return Splits("test", "train")

        def read(self, root, split):
            for key, image_id, name in rows:
                yield CaptionSample(key, image_id, (BytesImage(name, name.encode()),), ("x",))

    source = Source("own", Reader(), Path())
    for read in (source.samples, lambda: source.calibration(2, 0)):
        with pytest.raises(InputError, match=message):
            read()


def test_a_fingerprint_changes_with_every_text_and_every_chosen_picture(tmp_path):
    samples = find_source("vqa", str(official.vqav2(tmp_path))).samples()
    images = check_images(samples)
    first = fingerprint_samples(samples, samples[:2], images)
    assert first == fingerprint_samples(samples, samples[:2], images)
    assert first != fingerprint_samples(samples, samples[:3], images)
    assert first != fingerprint_samples(samples[:3], samples[:2], images)
    assert first != fingerprint_samples(
        samples, samples[:2], images | {samples[0].image: "another"}
    )
    moved = find_source("vqa", str(official.vqav2(tmp_path / "elsewhere"))).samples()
    images = check_images(moved)
    assert first == fingerprint_samples(moved, moved[:2], images)


def test_fingerprints_of_earlier_versions_stay_valid():
    """Recorded when a sample had the path of one picture."""
    images = [FileImage(Path(f"/data/p{k}.jpg")) for k in range(2)]
    samples = [
        QuestionSample(
            str(k), f"p{k // 2}", (images[k // 2],), "what is this?", ("net", "a net"), "other",
            (("structural", "query"),),
        )
        for k in range(4)
    ]  # fmt: skip
    digests = dict(zip(images, ("digest of p0", "digest of p1"), strict=True))
    assert fingerprint_samples(samples, samples[1:3], digests) == "8d2a0160787958e3c342"


def test_an_unusable_plugin_is_an_input_error(monkeypatch):
    class Half(Dataset):
        tasks = ("vqa",)
        layout = ""

        def splits(self, root):
            return Splits("test")

    monkeypatch.setattr("mmq.contracts.registry.load_class", lambda *arguments: Half)
    with pytest.raises(InputError, match="'half' cannot be used: .*abstract method '?read"):
        find_source("vqa", ".", dataset="half")


def test_a_missing_file_is_an_input_error_with_the_layout(tmp_path):
    class Plain(Dataset):
        tasks = ("vqa",)
        layout = "FOLDER/questions.txt"

        def splits(self, root):
            return Splits("test")

        def read(self, root, split):
            yield from (root / "questions.txt").open()

    with pytest.raises(InputError, match=r"questions.txt.\). The expected layout:\n\nFOLDER"):
        Source("plain", Plain(), tmp_path).samples()
