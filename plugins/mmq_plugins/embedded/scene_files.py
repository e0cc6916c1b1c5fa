"""Writes the unseen scenes to disk in the formats of COCO captions and VQAv2."""

import json
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmq_plugins.embedded.scene_text import annotate, ask, captions
from mmq_plugins.embedded.scenes import IMAGE_SIZE, encode_jpeg, make_scene, render

VERSION = "1"  # raise it whenever the same call would write other files
SCENES = 500
QUESTIONS_PER_SCENE = 2


def write_scenes(folder: Path, scenes: int = SCENES) -> None:
    """Write the test scenes unless they are there; an interrupted writing leaves no folder."""
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    images = aside / "val2014"
    images.mkdir()
    (aside / "annotations").mkdir()
    rng = random.Random("scene files")
    tables = _Tables()
    for image_id in tqdm(range(1, scenes + 1), desc="write scenes", unit="scene"):
        scene = make_scene(image_id, "test")
        name = f"COCO_val2014_{image_id:012d}.jpg"
        (images / name).write_bytes(encode_jpeg(render(scene)))
        tables.images.append(
            {"id": image_id, "file_name": name, "width": IMAGE_SIZE, "height": IMAGE_SIZE}
        )
        for caption in captions(scene, rng):
            tables.captions.append(
                {"id": len(tables.captions) + 1, "image_id": image_id, "caption": caption}
            )
        for k in range(QUESTIONS_PER_SCENE):
            tables.add_question(image_id, image_id * 1000 + k, ask(scene, rng), rng)
    tables.write(aside)
    try:
        aside.rename(folder)
    except OSError:  # another process was first
        if not folder.is_dir():
            raise
        shutil.rmtree(aside)


class _Tables:
    """The rows of the three annotation files."""

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.captions: list[dict[str, Any]] = []
        self.questions: list[dict[str, Any]] = []
        self.answers: list[dict[str, Any]] = []

    def add_question(
        self, image_id: int, question_id: int, question: Any, rng: random.Random
    ) -> None:
        ids = {"image_id": image_id, "question_id": question_id}
        self.questions.append({**ids, "question": question.text})
        answers = annotate(question, rng)
        self.answers.append(
            {
                **ids,
                "question_type": question.kind,
                "answer_type": question.answer_type,
                "multiple_choice_answer": question.answer,
                "answers": [
                    {"answer_id": k, "answer": answer, "answer_confidence": "yes"}
                    for k, answer in enumerate(answers, start=1)
                ],
            }
        )

    def write(self, folder: Path) -> None:
        """COCO's captions file, and VQAv2's questions and annotations files."""
        info = {"description": "mmq embedded scenes", "version": VERSION}
        caption_file = folder / "annotations" / "captions_val2014.json"
        _dump(caption_file, info=info, images=self.images, annotations=self.captions)
        _dump(
            folder / "v2_OpenEnded_mscoco_val2014_questions.json",
            info=info,
            data_type="mscoco",
            data_subtype="val2014",
            task_type="Open-Ended",
            questions=self.questions,
        )
        _dump(
            folder / "v2_mscoco_val2014_annotations.json",
            info=info,
            data_type="mscoco",
            data_subtype="val2014",
            annotations=self.answers,
        )


def _dump(path: Path, **content: Any) -> None:
    path.write_text(json.dumps(content))
