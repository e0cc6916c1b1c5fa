"""VQAv2 from the folder that the official downloads unpack to."""

from pathlib import Path
from typing import Any, ClassVar

from mmq.contracts import Dataset, QuestionSample
from mmq.errors import InputError
from mmq.images import inside
from mmq_plugins.datasets.files import entries, read_json

IDENTIFIER = (int, str)


class VqaV2(Dataset):
    """Questions and answers of val2014."""

    tasks: ClassVar[tuple[str, ...]] = ("vqa",)
    layout: ClassVar[str] = (
        "FOLDER/v2_OpenEnded_mscoco_val2014_questions.json\n"
        "FOLDER/v2_mscoco_val2014_annotations.json\n"
        "FOLDER/val2014/COCO_val2014_000000000042.jpg\n"
        "from https://visualqa.org/download.html and https://cocodataset.org/#download"
    )
    questions: ClassVar[str] = "v2_OpenEnded_mscoco_val2014_questions.json"
    annotations: ClassVar[str] = "v2_mscoco_val2014_annotations.json"

    def recognizes(self, root: Path) -> bool:
        """Whether the question or the annotation file is there."""
        return any((root / name).is_file() for name in (self.questions, self.annotations))

    def samples(self, task: str, root: Path) -> list[Any]:
        """One sample a question, in the question file's order."""
        path = root / self.annotations
        answers: dict[str, tuple[tuple[str, ...], str]] = {}
        wanted: dict[str, Any] = {"question_id": IDENTIFIER, "answers": list, "answer_type": str}
        for index, row in enumerate(entries(read_json(path), path, "annotations", wanted)):
            texts = [a.get("answer") if isinstance(a, dict) else None for a in row["answers"]]
            if not texts or not all(isinstance(text, str) for text in texts):
                raise InputError(
                    f"annotations: {path}: annotations[{index}] has an answer without text"
                )
            answers[str(row["question_id"])] = (tuple(map(str, texts)), row["answer_type"])
        path = root / self.questions
        wanted = {"question_id": IDENTIFIER, "image_id": IDENTIFIER, "question": str}
        samples = []
        for index, row in enumerate(entries(read_json(path), path, "questions", wanted)):
            key = str(row["question_id"])
            if key not in answers:
                raise InputError(
                    f"annotations: {path}: questions[{index}] has the id {key}, "
                    f"for which {self.annotations} has no answers"
                )
            image = _image(root, str(row["image_id"]))
            samples.append(
                QuestionSample(key, str(row["image_id"]), image, row["question"], *answers[key])
            )
        return samples


def _image(root: Path, image_id: str) -> Path:
    """COCO_val2014_000000000042.jpg for 42; an id that is no number is a file name."""
    name = f"COCO_val2014_{int(image_id):012d}.jpg" if image_id.isdecimal() else image_id
    return inside(root / "val2014", name)
