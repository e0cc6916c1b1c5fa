"""Small parquet folders with the columns and file names of the hub's copies."""

import io
import itertools

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_colors = itertools.count()


def png(size=(8, 6)):
    """The bytes of a picture unlike any before."""
    k = next(_colors)
    data = io.BytesIO()
    Image.new("RGB", size, (k % 256, k // 256 % 256, 7)).save(data, "PNG")
    return data.getvalue()


def cell(path=None):
    return {"bytes": png(), "path": path}


def write(path, rows, group=2, types=None):
    """A file with these rows; columns called image* are pictures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        name: pa.array(
            [row[name] for row in rows],
            PICTURE if name.startswith("image") and isinstance(rows[0][name], dict) else None,
        )
        for name in rows[0]
    }
    columns |= {name: columns[name].cast(kind) for name, kind in (types or {}).items()}
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return path


def shards(root, row, splits=("train", "validation"), folder="data", count=4):
    """Two splits of rows made by `row(split, k)`, the second in two shards."""
    for split in splits:
        rows = [row(split, k) for k in range(count)]
        parts = [rows] if split == splits[0] else [rows[:2], rows[2:]]
        for k, part in enumerate(parts):
            write(root / folder / f"{split}-{k:05d}-of-{len(parts):05d}.parquet", part)
    return root


def vqav2(root):
    pictures = {}

    def row(split, k):
        image_id = (100 if split == "train" else 200) + k // 2
        return {
            "question_type": "how many", "multiple_choice_answer": "2",
            "answers": [
                {"answer": "2", "answer_confidence": "yes", "answer_id": n} for n in range(10)
            ],
            "image_id": image_id, "answer_type": "number", "question_id": image_id * 1000 + k,
            "question": f"How many in {k}?", "image": pictures.setdefault(image_id, cell()),
        }  # fmt: skip

    return shards(root, row)


def gqa(root):
    for split in ("testdev", "train"):
        images = [{"id": f"{split}{k}", "image": cell()} for k in range(3)]
        questions = [
            {
                "id": f"{split}-{k}", "imageId": f"{split}{k % 3}", "question": f"Is it {k}?",
                "answer": "yes", "fullAnswer": "Yes, it is.", "isBalanced": True,
                "types": {"detailed": "exist", "semantic": "obj", "structural": "verify"},
            }
            for k in range(5)
        ]  # fmt: skip
        for kind, rows in (("images", images), ("instructions", questions)):
            write(root / f"{split}_balanced_{kind}" / f"{split}-00000-of-00001.parquet", rows)
    return root


def coco(root):
    def row(split, k):
        return {
            "question_id": f"{split}{k}.jpg", "image": cell(), "question": "Caption it.",
            "answer": [f"a thing {n}" for n in range(5)], "id": k, "license": 1,
            "file_name": f"{split}{k}.jpg", "coco_url": "http://x", "height": 6, "width": 8,
            "date_captured": "2013",
        }  # fmt: skip

    return shards(root, row, ("val",))


def flickr30k(root):
    rows = [
        {
            "image": cell(), "caption": [f"a man {n}" for n in range(5)],
            "sentids": [str(n) for n in range(5)], "split": ("train", "test", "val")[k % 3],
            "img_id": str(k), "filename": f"{k}.jpg",
        }
        for k in range(9)
    ]  # fmt: skip
    write(root / "TEST" / "test-00000-of-00001.parquet", rows)
    return root


def textvqa(root):
    def row(split, k):
        return {
            "image_id": f"{split}{k}", "question_id": k + (split == "train") * 100,
            "question": f"What is written {k}?", "question_tokens": ["what"], "image": cell(),
            "image_width": 8, "image_height": 6, "flickr_original_url": "http://x",
            "flickr_300k_url": "http://x", "answers": ["stop"] * 10, "image_classes": ["Sign"],
            "set_name": split,
        }  # fmt: skip

    return shards(root, row)


def chartqa(root):
    def row(split, k):
        return {
            "type": ("human_test", "augmented_test")[k % 2], "question": f"How much {k}?",
            "answer": "3.5", "image": cell(),
        }  # fmt: skip

    return shards(root, row, ("train", "test"))


def chartqa_m4(root):
    def row(split, k):
        return {"image": cell(), "query": f"How much {k}?", "label": ["14"], "human_or_machine": 0}

    return shards(root, row, ("train", "test"))


def docvqa(root):
    def row(split, k):
        return {
            "questionId": str(k), "question": f"What is the date {k}?",
            "question_types": ["handwritten"], "image": cell(), "docId": k,
            "ucsf_document_id": "abcd", "ucsf_document_page_no": "1",
            "answers": ["1/8/93", "1-8-93"], "data_split": "val",
        }  # fmt: skip

    return shards(root, row, ("validation",), "DocVQA")


def infographicvqa(root):
    def row(split, k):
        return {
            "questionId": str(k), "question": f"What is it {k}?", "answers": ["4%"],
            "answer_type": ["single span"], "image": cell(), "image_url": "http://x",
            "operation/reasoning": ["counting"], "ocr": "[]", "data_split": "val",
        }  # fmt: skip

    return shards(root, row, ("validation",), "InfographicVQA")


def ocrbench(root):
    def row(split, k):
        return {
            "dataset": "IIIT5K", "question": f"what is written {k}?",
            "question_type": "Regular Text Recognition", "answer": ["CENTRE"], "image": cell(),
        }  # fmt: skip

    return shards(root, row, ("test",))


def mmmu(root):
    for subject in ("Art", "Math"):
        for split in ("dev", "validation"):
            rows = [
                {
                    "id": f"{split}_{subject}_{k}", "question": f"<image 1> and {k}?",
                    "options": "['one', \"two's\", '3']" if k else "[]", "explanation": "",
                    "image_1": cell(), "image_2": cell() if k == 1 else None,
                    "image_3": None, "img_type": "['Plots']", "answer": "B" if k else "24",
                    "topic_difficulty": "Easy",
                    "question_type": "multiple-choice" if k else "open", "subfield": "x",
                }
                for k in range(3)
            ]  # fmt: skip
            path = root / subject / f"{split}-00000-of-00001.parquet"
            write(path, rows, types={"image_3": PICTURE})
    return root


def mmbench(root, configs=("en",)):
    def row(split, k):
        return {
            "index": k, "question": f"Which {k}?", "hint": "nan" if k else "Look.",
            "answer": "B", "A": "x", "B": "y", "C": "z" if k else None, "D": None,
            "category": "color", "image": cell(), "source": "s", "L2-category": "l",
            "comment": "nan", "split": "dev",
        }  # fmt: skip

    for config in configs:
        shards(root, row, ("dev",), config)
    return root


def mmstar(root):
    rows = [
        {
            "index": k, "question": f"Which {k}?\nOptions: A: a cat, B: a dog, C: none, D: 4",
            "image": png(), "answer": "B", "category": "math", "l2_category": "geometry",
            "meta_info": {"source": "s", "split": "val", "image_path": f"{k}.jpg"},
        }
        for k in range(4)
    ]  # fmt: skip
    write(root / "mmstar.parquet", rows)
    return root


def pope(root):
    pictures = {}

    def row(split, k):
        return {
            "id": str(k), "question_id": str(k % 2), "question": f"Is there a {k}?",
            "answer": ("yes", "no")[k % 2], "image_source": f"COCO_{k // 2}",
            "image": pictures.setdefault(k // 2, cell()), "category": "popular",
        }  # fmt: skip

    return shards(root, row, ("test",))


def ai2d(root):
    def row(split, k):
        return {"question": f"What {k}?", "options": list("dcba"), "answer": "2", "image": cell()}

    return shards(root, row, ("test",))
