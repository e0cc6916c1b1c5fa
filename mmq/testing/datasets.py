"""The contract of every data set, tested on a small folder that you write."""

import pickle
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from mmq.contracts import Dataset, Sample
from mmq.data.image_checks import check_images
from mmq.data.source import Source
from mmq.errors import InputError


class DatasetContract(ABC):
    """Subclass it and implement `make` and `root`."""

    @abstractmethod
    def make(self) -> Dataset:
        """The data set under test."""

    @abstractmethod
    def root(self, tmp_path: Path) -> Path:
        """A folder with a few samples per split, written to tmp_path or below it."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """A folder in the data set's layout."""
        (tmp_path / "data").mkdir()
        return self.root(tmp_path / "data")

    def _splits(self, folder: Path) -> list[str]:
        splits = self.make().splits(folder)
        return [splits.evaluation] + ([splits.calibration] if splits.calibration else [])

    def _read(self, folder: Path) -> Iterator[tuple[str, list[Sample]]]:
        for split in self._splits(folder):
            yield split, list(self.make().read(folder, split))

    def test_tasks_and_layout_are_declared(self) -> None:
        dataset = self.make()
        assert dataset.tasks
        assert all(isinstance(task, str) for task in dataset.tasks)
        assert dataset.layout.strip()

    def test_every_split_has_samples(self, folder: Path) -> None:
        splits = self._splits(folder)
        assert len(set(splits)) == len(splits), "evaluation and calibration are one split"
        for split, samples in self._read(folder):
            assert samples, f"the split {split} is empty"
            assert all(isinstance(sample, Sample) for sample in samples)

    def test_ids_are_unique_and_name_one_picture_each(self, folder: Path) -> None:
        source = Source("the data set", self.make(), folder)
        source.samples()  # InputError otherwise
        for split, samples in self._read(folder):
            assert len({sample.id for sample in samples}) == len(samples), split

    def test_every_picture_opens(self, folder: Path) -> None:
        for _, samples in self._read(folder):
            digests = check_images(samples, quiet=True)
            assert all(image.open().mode == "RGB" for image in digests)
            assert all(image.name for image in digests)

    def test_references_to_pictures_survive_a_process_boundary(self, folder: Path) -> None:
        for _, samples in self._read(folder):
            images = {image for sample in samples for image in sample.images}
            assert {pickle.loads(pickle.dumps(image)) for image in images} == images

    def test_calibration_shares_no_picture_with_the_evaluation(self, folder: Path) -> None:
        evaluated: set[str] = set()
        for split, samples in self._read(folder):
            digests = set(check_images(samples, quiet=True).values())
            assert not digests & evaluated, f"a picture of {split} is evaluated too"
            evaluated |= digests

    def test_reading_again_gives_the_same_samples_in_the_same_order(self, folder: Path) -> None:
        assert [*self._read(folder)] == [*self._read(folder)]

    def test_samples_are_read_one_by_one(self, folder: Path) -> None:
        for split, samples in self._read(folder):
            stream = self.make().read(folder, split)
            assert iter(stream) is stream, "read returns an iterator, e.g. by `yield`"
            assert next(stream) == samples[0]

    def test_a_selection_gives_the_samples_that_reading_gives(self, folder: Path) -> None:
        for split, samples in self._read(folder):
            dataset = self.make()
            assert dataset.select(folder, split, list) == samples
            assert dataset.select(folder, split, lambda rows: [*islice(rows, 1)]) == samples[:1]
            assert dataset.select(folder, split, lambda rows: []) == []

    def test_a_missing_or_empty_folder_is_an_input_error_with_the_layout(
        self, tmp_path: Path
    ) -> None:
        dataset, empty = self.make(), tmp_path / "empty"
        if dataset.bundled:
            return
        empty.mkdir()
        for folder in (tmp_path / "nowhere", empty):
            assert not dataset.recognizes(folder)
            with pytest.raises(InputError) as caught:
                Source("the data set", dataset, folder).samples()
            assert dataset.layout in str(caught.value)

    def test_a_complete_folder_lacks_nothing(self, folder: Path) -> None:
        dataset = self.make()
        assert dataset.lacking(folder) == []
        if dataset.needs:
            assert dataset.recognizes(folder)
