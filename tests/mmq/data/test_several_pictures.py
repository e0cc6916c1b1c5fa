"""Samples with several pictures: each picture is checked, fingerprinted and held out."""

import io

import pytest
from PIL import Image

from mmq.config import TaskOptions
from mmq.contracts import BytesImage, Dataset, QuestionSample, Sample, Splits, registry
from mmq.data.draw import draw_data
from mmq.data.image_checks import check_images
from mmq.data.source import Source, fingerprint_samples
from mmq.errors import InputError
from mmq.testing import DatasetContract

ANSWERS = ("yes",) * 10


def cell(level):
    """A picture in memory; the level, 0 to 255, makes the difference."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (level, 0, 0)).save(buffer, "PNG")
    return BytesImage(f"cells.parquet, row {level}", buffer.getvalue())


def pair(first, second, name=""):
    key = name or f"{first}-{second}"
    images = (cell(first), cell(second))
    return QuestionSample(key, f"{first}-{second}", images, "the same?", ANSWERS, "yes/no")


class Pairs(Dataset):
    """Questions about two pictures; test and training rows are listed as (first, second)."""

    tasks = ("vqa",)
    layout = "FOLDER/pairs.txt"
    needs = ("pairs.txt",)
    test = [(0, 1), (2, 3), (4, 5), (6, 7)]
    training = [(100, 101), (102, 103), (104, 105)]

    def splits(self, root):
        return Splits("test", "training" if self.training else None)

    def read(self, root, split):
        for first, second in self.test if split == "test" else self.training:
            yield pair(first, second)


class TestPairs(DatasetContract):
    def make(self):
        return Pairs()

    def root(self, tmp_path):
        (tmp_path / "pairs.txt").touch()
        return tmp_path


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """What a study draws from `Pairs` with these rows."""
    (tmp_path / "pairs.txt").touch()
    monkeypatch.setattr(registry, "load_class", lambda *arguments: Pairs)

    def draw(test=Pairs.test, training=Pairs.training, count=2, limit="0"):
        monkeypatch.setattr(Pairs, "test", test)
        monkeypatch.setattr(Pairs, "training", training)
        options = TaskOptions(
            data=str(tmp_path), dataset="pairs", limit=limit, calibration_samples=count
        )
        return draw_data(options, "vqa", calibrated=True)

    return draw


def pictures(samples):
    return {image for sample in samples for image in sample.images}


def test_the_second_picture_counts_in_the_fingerprint(draw):
    first = draw()
    assert len(first.calibration) == 2
    assert first.fingerprint == draw().fingerprint
    assert first.fingerprint != draw(test=[(0, 1), (2, 3), (4, 5), (6, 9)]).fingerprint
    assert first.fingerprint != draw(test=[(0, 1), (2, 3), (4, 5), (7, 6)]).fingerprint
    samples = first.samples
    digests = check_images(samples, quiet=True)
    changed = digests | {samples[0].images[1]: "another"}
    assert fingerprint_samples(samples, samples, digests) == first.fingerprint
    assert fingerprint_samples(samples, samples, changed) != first.fingerprint


def test_an_evaluated_picture_in_second_place_is_refused(draw):
    with pytest.raises(InputError, match="row 5 is evaluated too; scores on it would be biased"):
        draw(training=[(100, 101), (102, 5)])


def test_held_out_pairs_share_no_picture_with_the_evaluation(draw):
    test = [(k, k + 1) for k in range(0, 24, 2)] + [(0, 3), (4, 7)]
    data = draw(test=test, training=[], count=3, limit="8")
    assert len(data.calibration) == 3
    assert len(data.samples) == 8
    assert not pictures(data.calibration) & pictures(data.samples)
    data = draw(test=test, training=[], count=3)
    assert data.calibration
    assert not pictures(data.calibration) & pictures(data.samples)


def test_a_second_picture_that_cannot_be_opened_is_named_with_its_sample():
    broken = Sample("7", "7", (cell(1), BytesImage("row 9", b"text")))
    with pytest.raises(InputError, match="image: row 9 cannot .*; it belongs to the sample 7"):
        check_images([broken], quiet=True)


def test_an_id_of_two_sets_of_pictures_is_refused(tmp_path):
    class Mixed(Pairs):
        needs = ()

        def read(self, root, split):
            yield pair(0, 1)
            yield QuestionSample("2", "0-1", (cell(0), cell(2)), "?", ANSWERS, "other")

    with pytest.raises(InputError, match=r"id 0-1, .*row 0 \+ .*row 1 and .*row 0 \+ .*row 2;"):
        Source("mixed", Mixed(), tmp_path).samples()


def test_a_sample_with_several_pictures_has_no_single_one():
    assert pair(0, 1).images[0] == Sample("1", "1", (cell(0),)).image
    with pytest.raises(
        InputError, match="sample 0-1 has 2 pictures, but only one is supported here"
    ):
        _ = pair(0, 1).image


@pytest.mark.parametrize("images", [(), None, cell(0), [cell(0)]])
def test_images_that_are_not_a_tuple_are_refused(images):
    with pytest.raises(ValueError, match=r"sample 1 is not a tuple of pictures; write \(FileIm"):
        Sample("1", "1", images)
