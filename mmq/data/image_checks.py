"""The pictures of samples: their file names, and whether all of them can be opened."""

import os
from collections.abc import Iterable
from pathlib import Path

from mmq.contracts.images import FileImage, ImageRef
from mmq.contracts.samples import Sample
from mmq.errors import InputError
from mmq.system.progress import progress_bar


def inside(folder: Path, name: str) -> Path:
    """folder/name; InputError if that is outside the folder."""
    if "\0" in name:
        raise InputError(f"image: {name!r} is not a file name; correct the annotation file")
    # by the name alone: a link in the folder (of a download cache, say) may lead anywhere
    if name[:1] == os.sep or (".." in name and ".." in Path(name).parts):
        raise InputError(f"image: {name!r} is outside {folder}; correct the annotation file")
    return folder / name


def sample_of_each(samples: Iterable[Sample]) -> dict[ImageRef, str]:
    """Every distinct picture of the samples, with the id of the first sample that has it."""
    users: dict[ImageRef, str] = {}
    for sample in samples:
        for image in sample.images:
            users.setdefault(image, sample.id)
    return users


def check_images(samples: Iterable[Sample], quiet: bool = False) -> dict[ImageRef, str]:
    """Open every picture of the samples once; the digest of each.

    InputError, with the sample, for the first by name that is missing or unreadable.
    """
    users = sample_of_each(samples)
    digests: dict[ImageRef, str] = {}
    # cells of tables in the order of their rows, which reads each file once
    ordered = sorted(users, key=lambda image: image.name if isinstance(image, FileImage) else "")
    for image in progress_bar(ordered, desc="check images", leave=False, quiet=quiet):
        try:
            digests[image] = image.digest()
        except InputError as error:
            raise InputError(f"{error}; it belongs to the sample {users[image]}") from error
    return digests
