"""Small data sets in the official formats, with the keys that the real files have."""

import json

import numpy as np
from PIL import Image

from mmq.data.source import Source

CAPTIONS = [f"a cat sits on mat {k} ." for k in range(5)]


def samples_of(reader, root):
    """The evaluation split as a data set reads it, without further checks."""
    return list(reader.read(root, reader.splits(root).evaluation))


def pairs_of(reader, root, count, seed=0):
    """Calibration pairs as a study draws them."""
    return Source("own", reader, root).calibration(count, seed)


def picture(path, seed):
    """A small JPEG whose content depends on the seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "JPEG")


def dump(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def sentences(imgid, captions=CAPTIONS):
    return [
        {"tokens": text.rstrip(" .").split(), "raw": text, "imgid": imgid, "sentid": imgid * 5 + k}
        for k, text in enumerate(captions)
    ]


def karpathy_coco(root, test=3, train=4, restval=2):
    """dataset_coco.json with val2014 and train2014."""
    rows = []
    plan = [("test", "val2014")] * test + [("train", "train2014")] * train
    for imgid, (split, folder) in enumerate(plan + [("restval", "val2014")] * restval):
        cocoid = 391895 + imgid
        name = f"COCO_{folder}_{cocoid:012d}.jpg"
        picture(root / folder / name, cocoid)
        rows.append(
            {
                "filepath": folder, "sentids": [imgid * 5 + k for k in range(5)],
                "filename": name, "imgid": imgid, "split": split,
                "sentences": sentences(imgid), "cocoid": cocoid,
            }
        )  # fmt: skip
    dump(root / "dataset_coco.json", {"images": rows, "dataset": "coco"})
    return root


def lavis_coco(root, test=3, train=4):
    """coco_karpathy_test.json and _train.json in annotations/, pictures in images/."""
    rows = []
    for cocoid in range(test):
        name = f"val2014/COCO_val2014_{cocoid:012d}.jpg"
        picture(root / "images" / name, cocoid)
        rows.append({"image": name, "caption": CAPTIONS})
    dump(root / "annotations" / "coco_karpathy_test.json", rows)
    rows = []
    for cocoid in range(100, 100 + train):
        name = f"train2014/COCO_train2014_{cocoid:012d}.jpg"
        picture(root / "images" / name, cocoid)
        rows += [{"caption": c, "image": name, "image_id": f"coco_{cocoid}"} for c in CAPTIONS]
    dump(root / "annotations" / "coco_karpathy_train.json", rows)
    return root


def flickr_names(root, folder, count=7):
    names = [f"{1007129816 + k}.jpg" for k in range(count)]
    for k, name in enumerate(names):
        picture(root / folder / name, k)
    return names


def karpathy_flickr(root, folder="flickr30k-images"):
    """dataset_flickr30k.json: three test pictures, then four training pictures."""
    rows = [
        {
            "sentids": [k * 5 + j for j in range(5)], "imgid": k,
            "sentences": sentences(k), "split": "test" if k < 3 else "train", "filename": name,
        }
        for k, name in enumerate(flickr_names(root, folder))
    ]  # fmt: skip
    dump(root / "dataset_flickr30k.json", {"images": rows, "dataset": "flickr30k"})
    return root


def lavis_flickr(root):
    names = [f"flickr30k-images/{n}" for n in flickr_names(root, "images/flickr30k-images")]
    dump(
        root / "annotations" / "flickr30k_test.json",
        [{"image": n, "caption": CAPTIONS} for n in names[:3]],
    )
    train = [
        {"image": name, "caption": caption, "image_id": k}
        for k, name in enumerate(names[3:])
        for caption in CAPTIONS
    ]
    dump(root / "annotations" / "flickr30k_train.json", train)
    return root


def token_flickr(root):
    names = flickr_names(root, "flickr30k_images/flickr30k_images")
    lines = [f"{name}#{k}\t{text}\n" for name in names for k, text in enumerate(CAPTIONS)]
    (root / "results_20130124.token").write_text("".join(lines))
    (root / "test.txt").write_text("\n".join(n.removesuffix(".jpg") for n in names[:3]))
    (root / "train.txt").write_text("\n".join(n.removesuffix(".jpg") for n in names[3:]))
    return root


def gqa_question(image_id, k):
    return {
        "semantic": [
            {"operation": "select", "dependencies": [], "argument": "sky (2486325)"},
            {"operation": "verify color", "dependencies": [0], "argument": "dark"},
        ],
        "entailed": [], "equivalent": [f"2013{k:05d}"], "question": f"Is the sky dark {k}?",
        "imageId": image_id, "isBalanced": True,
        "groups": {"global": None, "local": "06-sky_dark"}, "answer": "yes",
        "semanticStr": "select: sky (2486325)->verify color: dark [0]",
        "annotations": {"answer": {}, "question": {"2": "2486325"}, "fullAnswer": {}},
        "types": {"detailed": "verifyAttr", "semantic": "attr", "structural": "verify"},
        "fullAnswer": "Yes, the sky is dark.",
    }  # fmt: skip


def gqa(root, questions="questions1.2", test=6, train=8):
    """Two questions per picture; test-dev pictures start at n161313, training ones at 2370799."""
    for name, first, prefix, count in (
        ("testdev_balanced_questions.json", 161313, "n", test),
        ("train_balanced_questions.json", 2370799, "", train),
    ):
        rows = {}
        for k in range(count):
            image_id = f"{prefix}{first + k // 2}"
            picture(root / "images" / f"{image_id}.jpg", first + k // 2)
            rows[f"2013{first}{k}"] = gqa_question(image_id, k)
        dump(root / questions / name, rows)
    return root


def vqa_rows(split, image_id, k):
    """A question and its annotation as VQAv2 has them."""
    ids = {"image_id": image_id, "question_id": image_id * 1000 + k}
    answers = [
        {"answer": "net", "answer_confidence": "maybe", "answer_id": j} for j in range(1, 11)
    ]
    annotation = {
        "question_type": "what is this", "multiple_choice_answer": "net", "answers": answers,
        "answer_type": "other", **ids,
    }  # fmt: skip
    return {"question": f"What is this {k}?", **ids}, annotation


def vqav2(root, pictures=None, folder="", prefix=""):
    """Questions on the pictures of val2014 and train2014, two each."""
    head = {"info": {}, "license": {}, "data_type": "mscoco"}
    for split, ids in (pictures or {"val2014": range(1, 4), "train2014": range(100, 105)}).items():
        rows = [vqa_rows(split, image_id, k) for image_id in ids for k in range(2)]
        for image_id in ids:
            name = f"COCO_{split}_{image_id:012d}.jpg"
            picture(root / prefix / split / name, image_id)
        dump(
            root / folder / f"v2_OpenEnded_mscoco_{split}_questions.json",
            {**head, "data_subtype": split, "questions": [question for question, _ in rows]},
        )
        dump(
            root / folder / f"v2_mscoco_{split}_annotations.json",
            {**head, "data_subtype": split, "annotations": [answer for _, answer in rows]},
        )
    return root


def coco_captions(root, pictures=None):
    """captions_SPLIT.json and pictures of val2014 and train2014."""
    for split, ids in (pictures or {"val2014": range(1, 4), "train2014": range(100, 105)}).items():
        images, rows = [], []
        for image_id in ids:
            name = (
                f"COCO_{split}_{image_id:012d}.jpg" if "2014" in split else f"{image_id:012d}.jpg"
            )
            picture(root / split / name, image_id)
            images.append(
                {
                    "license": 5, "file_name": name, "coco_url": "http://images.cocodataset.org/",
                    "height": 8, "width": 8, "date_captured": "2013-11-14 16:28:13",
                    "flickr_url": "http://farm4.staticflickr.com/", "id": image_id,
                }
            )  # fmt: skip
            rows += [{"image_id": image_id, "id": len(rows), "caption": c} for c in CAPTIONS]
        dump(
            root / "annotations" / f"captions_{split}.json",
            {"info": {}, "licenses": [], "images": images, "annotations": rows},
        )
    return root
