"""Writes scenes to disk in the formats of COCO captions, VQAv2, GQA and Flickr30k.

    coco/        captions and VQAv2 questions on the same pictures, val2014 and train2014
    gqa/         relational questions on the same pictures
    flickr30k/   groups of minimal pairs of scenes, five captions each

Test scenes are scored; training scenes are for calibration.
"""

import json
import logging
import random
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmq.system.atomic import atomic_write
from mmq.system.checksums import NAME, check_folder, seal_folder
from mmq.system.disk import naming
from mmq.system.progress import progress_bar
from mmq.system.sealed import Unusable, read_bytes
from mmq_plugins.embedded.scene_pairs import full_captions, minimal_group
from mmq_plugins.embedded.scene_relations import ask_relations
from mmq_plugins.embedded.scene_text import annotate, ask, captions
from mmq_plugins.embedded.scenes import IMAGE_SIZE, Scene, encode_jpeg, make_scene, render

log = logging.getLogger(__name__)
VERSION = "2"  # raise it when the same call writes different files
SCENES = 500
GROUPS = 10  # of ten scenes that differ in one attribute
TRAINING = 160  # enough for 128 calibration pairs
QUESTIONS_PER_SCENE = 2
FIRST_TRAINING_ID = 1_000_001
FIRST_GROUP = 2_000_000  # first test scene of the retrieval pool
INFO = {"description": "mmq embedded scenes", "version": VERSION}


def write_scenes(
    folder: Path, scenes: int = SCENES, groups: int = GROUPS, training: int = TRAINING
) -> None:
    """Write the scenes unless they exist with all checksums intact.

    An interrupted write leaves no folder. Damaged or missing files are written again.
    """
    if folder.is_dir() and not _problems(folder):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        with naming(folder):
            _write_all(aside, scenes, groups, training)
            seal_folder(aside, folder.name, durable=False)  # checksums reveal a truncated file
        if folder.is_dir():  # it is damaged, or another process was first
            _repair(folder, aside, _problems(folder))
        else:
            aside.rename(folder)
    except OSError:  # another process was first, or the disk is full
        if not folder.is_dir() or _problems(folder):
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write_all(aside: Path, scenes: int, groups: int, training: int) -> None:
    test = {k: make_scene(k, "test") for k in range(1, scenes + 1)}
    train = {FIRST_TRAINING_ID + k: make_scene(k) for k in range(training)}
    for split, part in (("val2014", test), ("train2014", train)):
        _write_coco(aside / "coco", split, part)
    for split, part in (("testdev", test), ("train", train)):
        _write_gqa(aside / "gqa", split, part)
    _write_flickr(aside / "flickr30k", _pool(groups), list(train.values()))


def _problems(folder: Path) -> dict[str, str]:
    """Problems of the written files, by file; of the checksum file if it is unusable."""
    try:
        return {file: str(problem) for file, problem in check_folder(folder, folder.name).items()}
    except (FileNotFoundError, Unusable) as problem:
        return {NAME: str(problem) if isinstance(problem, Unusable) else ""}


def _repair(folder: Path, sound: Path, problems: dict[str, str]) -> None:
    """Replace damaged files by intact ones; without checksums, those that differ."""
    has_checksums = NAME not in problems
    files = [p.relative_to(sound).as_posix() for p in sound.rglob("*") if p.is_file()]
    wrong = [
        file
        for file in sorted(files)
        if (
            file in problems
            if has_checksums
            else file != NAME and not _same(folder / file, sound / file)
        )
    ]
    if wrong:
        why = problems.get(wrong[0]) or "not as mmq writes it"
        more = f" and {len(wrong) - 1} other files are" if wrong[1:] else " is"
        log.warning("%s%s damaged (%s): written again", folder / wrong[0], more, why)
    elif problems.get(NAME):
        log.warning("%s is damaged (%s): written again", folder / NAME, problems[NAME])
    for file in wrong if has_checksums else [*wrong, NAME]:
        with atomic_write(folder / file) as aside:
            shutil.copyfile(sound / file, aside)


def _same(place: Path, path: Path) -> bool:
    try:
        return read_bytes(place) == path.read_bytes()
    except (FileNotFoundError, Unusable):
        return False


def _pool(groups: int) -> list[Scene]:
    rng = random.Random("retrieval pool")
    return [
        scene
        for k in range(groups)
        for scene in minimal_group(make_scene(FIRST_GROUP + k, "test"), rng)
    ]


def _draw(folder: Path, named: Iterable[tuple[str, Scene]], total: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = f"write {folder.parent.name}/{folder.name}"
    for name, scene in progress_bar(named, desc=text, unit="scene", total=total, leave=False):
        (folder / name).write_bytes(encode_jpeg(render(scene)))


def _write_coco(folder: Path, split: str, scenes: dict[int, Scene]) -> None:
    """COCO's captions file and pictures, and VQAv2's questions and annotations files."""
    names = {k: f"COCO_{split}_{k:012d}.jpg" for k in scenes}
    _draw(folder / split, ((names[k], scene) for k, scene in scenes.items()), len(scenes))
    rng = random.Random("scene files" if split == "val2014" else f"scene files {split}")
    annotations: list[dict[str, Any]] = []
    questions: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    for image_id, scene in scenes.items():
        for caption in captions(scene, rng):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image_id, "caption": caption}
            )
        for k in range(QUESTIONS_PER_SCENE):
            question = ask(scene, rng)
            ids = {"image_id": image_id, "question_id": image_id * 1000 + k}
            questions.append({**ids, "question": question.text})
            answers.append({**ids, **_answers(question, rng)})
    size = {"width": IMAGE_SIZE, "height": IMAGE_SIZE}
    images = [{"id": k, "file_name": name, **size} for k, name in names.items()]
    path = folder / "annotations" / f"captions_{split}.json"
    path.parent.mkdir(exist_ok=True)
    _dump(path, {"info": INFO, "images": images, "annotations": annotations})
    head = {"info": INFO, "data_type": "mscoco", "data_subtype": split}
    path = folder / f"v2_OpenEnded_mscoco_{split}_questions.json"
    _dump(path, {**head, "task_type": "Open-Ended", "questions": questions})
    _dump(folder / f"v2_mscoco_{split}_annotations.json", {**head, "annotations": answers})


def _answers(question: Any, rng: random.Random) -> dict[str, Any]:
    return {
        "question_type": question.kind,
        "answer_type": question.answer_type,
        "multiple_choice_answer": question.answer,
        "answers": [
            {"answer_id": k, "answer": answer, "answer_confidence": "yes"}
            for k, answer in enumerate(annotate(question, rng), start=1)
        ],
    }


def _write_gqa(folder: Path, split: str, scenes: dict[int, Scene]) -> None:
    """GQA's balanced questions file of a split, and its pictures."""
    pictures = ((f"n{image_id}.jpg", scene) for image_id, scene in scenes.items())
    _draw(folder / "images", pictures, len(scenes))
    rng = random.Random(f"gqa {split}")
    questions: dict[str, Any] = {}
    for image_id, scene in scenes.items():
        for k, question in enumerate(ask_relations(scene, rng, QUESTIONS_PER_SCENE)):
            questions[f"{image_id * 1000 + k}"] = {
                "imageId": f"n{image_id}",
                "question": question.text,
                "answer": question.answer,
                "isBalanced": True,
                "types": {
                    "structural": question.structural,
                    "semantic": question.semantic,
                    "detailed": f"{question.structural}-{question.semantic}",
                },
            }
    _dump(folder / f"{split}_balanced_questions.json", questions)


def _write_flickr(folder: Path, pool: Sequence[Scene], training: Sequence[Scene]) -> None:
    """Karpathy's file of Flickr30k and its pictures."""
    rows: list[dict[str, Any]] = []
    splits = [("test", scene) for scene in pool] + [("train", scene) for scene in training]
    for image_id, (split, scene) in enumerate(splits):
        first = len(rows) * 5
        sentences = [
            {"raw": text, "tokens": text.replace(",", "").split(), "imgid": image_id, "sentid": k}
            for k, text in enumerate(full_captions(scene), start=first)
        ]
        rows.append(
            {
                "filename": f"{image_id + 1}.jpg",
                "imgid": image_id,
                "split": split,
                "sentids": [sentence["sentid"] for sentence in sentences],
                "sentences": sentences,
            }
        )
    pictures = ((row["filename"], scene) for row, (_, scene) in zip(rows, splits, strict=True))
    _draw(folder / "flickr30k-images", pictures, len(rows))
    _dump(folder / "dataset_flickr30k.json", {"dataset": "flickr30k", "images": rows})


def _dump(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))
