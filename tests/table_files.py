"""Tables of pictures and questions, as people write them."""

import hub_files as hub

from mmq.data.image_checks import check_images
from mmq.data.source import find_source

ROWS = "image,question,answer\na.png,What is it?,a cat\nb.png,What is it?,a dog\n"


def with_pictures(folder):
    """The folder, with pictures a.png to d.png, and more in photos/."""
    for place in (folder, folder / "photos"):
        place.mkdir(exist_ok=True)
        names = "abcd" if place == folder else ("IMG_1", "IMG_2")
        for name in names:
            (place / f"{name}.png").write_bytes(hub.png())
    return folder


def read(path, task="vqa", fields=""):
    """The samples, with every picture opened."""
    samples = find_source(task, str(path), fields=fields).samples()
    check_images(samples, quiet=True)
    return samples


def sheet(folder, content, name="sheet.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path
