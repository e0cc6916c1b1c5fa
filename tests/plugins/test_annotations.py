"""Annotation files with duplicates or unexpected content."""

import json
import os

import official_files as official
import pytest
from mmq_plugins.datasets.coco_captions import CocoCaptions
from mmq_plugins.datasets.coco_karpathy import CocoKarpathy
from mmq_plugins.datasets.flickr30k import Flickr30k
from mmq_plugins.datasets.gqa import Gqa
from mmq_plugins.datasets.vqav2 import VqaV2

from mmq.data.source import find_source
from mmq.errors import InputError

LAYOUTS = {
    "coco": (official.coco_captions, CocoCaptions(), "captioning"),
    "karpathy coco": (official.karpathy_coco, CocoKarpathy(), "captioning"),
    "lavis coco": (official.lavis_coco, CocoKarpathy(), "captioning"),
    "karpathy flickr": (official.karpathy_flickr, Flickr30k(), "retrieval"),
    "lavis flickr": (official.lavis_flickr, Flickr30k(), "retrieval"),
    "token flickr": (official.token_flickr, Flickr30k(), "retrieval"),
    "gqa": (official.gqa, Gqa(), "gqa"),
    "vqav2": (official.vqav2, VqaV2(), "vqa"),
}
CAPTIONS = "annotations/captions_val2014.json"
COCO, FLICKR = "dataset_coco.json", "dataset_flickr30k.json"
LAVIS = "annotations/coco_karpathy_test.json"
QUESTIONS = "v2_OpenEnded_mscoco_val2014_questions.json"
ANSWERS = "v2_mscoco_val2014_annotations.json"
GQA = "questions1.2/testdev_balanced_questions.json"


def read(tmp_path, layout, file, edit, indent=None):
    """The samples of a layout after its file was edited, as content or as bytes."""
    write, reader, task = LAYOUTS[layout]
    path = write(tmp_path) / file
    content = path.read_bytes()
    if path.suffix == ".json" and (changed := edit(loaded := json.loads(content))) is not bytes:
        content = json.dumps(loaded if changed is None else changed, indent=indent).encode()
    else:
        content = edit(content)
    path.write_bytes(content)
    return official.samples_of(reader, tmp_path)


def anonymous(content):
    """A caption without an id, twice."""
    content["annotations"][0]["id"] = None
    content["annotations"].append(content["annotations"][0])


def again(section, source, **changes):
    """Repeat a row of a list, with changes, at the end of it."""

    def edit(content):
        rows = content[section] if section else content
        rows.append({**rows[source], **changes})

    return edit


@pytest.mark.parametrize(
    ("layout", "file", "edit", "message"),
    [
        ("coco", CAPTIONS, again("images", 0, file_name="b.jpg"),
         r'the id 1 appears twice: images\[0\] in line 5 \("COCO_val2014_0+1.jpg"\); '
         r'images\[3\] in line 35 \("b.jpg"\)'),
        ("coco", CAPTIONS, again("images", 0, id="1", file_name="b.jpg"), "the id 1 appears"),
        ("coco", CAPTIONS, again("images", 0, id=77), 'the file_name "COCO_.*1.jpg" appears'),
        ("coco", CAPTIONS, again("annotations", 6),
         r'image_id 2 with the caption "a cat .*" appears twice: annotations\[6\] in line .*; '
         r'annotations\[15\] in line'),
        ("coco", CAPTIONS, anonymous,
         r"image_id 1 with the caption .* appears twice: annotations\[0\]"),
        ("karpathy coco", COCO, again("images", 1, cocoid=5), r'the filename ".*" appears twice: '
         r'images\[1\] in line \d+ \("test"\); images\[9\]'),
        ("karpathy coco", COCO, again("images", 1, filename="b.jpg", split="train"),
         r'the cocoid 391896 appears twice'),
        ("karpathy flickr", FLICKR, again("images", 0), 'the filename "1007129816.jpg" appears'),
        ("karpathy flickr", FLICKR, lambda c: again("sentences", 2)(c["images"][1]),
         r"the sentid 7 of images\[1\] appears twice: sentences\[2\]; sentences\[5\]"),
        ("karpathy flickr", FLICKR,
         lambda c: c["images"][1].update(sentences=[{"raw": "a"}, {"raw": "b"}] * 2),
         "every caption of 1007129817.jpg appears more than once"),
        ("lavis coco", LAVIS, again("", 1),
         r"\[3\] has captions of val2014/COCO_\S+ again; \[1\] has them"),
        ("lavis coco", LAVIS, again("", 1, caption="another"), r"\[3\] has captions of .* again"),
        ("lavis coco", LAVIS, lambda c: c[0].update(caption=2 * c[0]["caption"]),
         "every caption of .*COCO_val2014_000000000000.jpg appears more than once"),
        ("token flickr", "results_20130124.token", lambda text: text + text.splitlines()[1],
         "1007129816.jpg#1 appears twice: line 2; line 36"),
        ("token flickr", "test.txt", lambda text: text + b"\n\n1007129817.jpg\n",
         "the picture 1007129817 appears twice: line 2; line 5"),
        ("vqav2", QUESTIONS, again("questions", 3, question="Another?"),
         r'the question_id 2001 appears twice: questions\[3\] .*"What is this 1.*questions.*"Ano'),
        ("vqav2", QUESTIONS, again("questions", 3, question_id="2001"), "question_id 2001 app"),
        ("vqav2", ANSWERS, again("annotations", 3), r"the question_id 2001 appears twice: anno"),
    ],
)  # fmt: skip
def test_duplicates_are_refused_with_both_places(tmp_path, layout, file, edit, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, layout, file, edit, indent=1)


@pytest.mark.parametrize(
    ("layout", "file", "old", "new", "message"),
    [
        ("coco", CAPTIONS, b'"info": {}', b'"annotations": []', "the key 'annotations' appears"),
        ("coco", CAPTIONS, b'"id": 2', b'"id": 2, "id": 3', 'the key "id" appears twice'),
        ("coco", CAPTIONS, b'"info": {}', b'"info": {"a": 1, "a": 2}', 'the key "a" appears'),
        ("gqa", GQA, b'"20131613131"', b'"20131613130"',
         "the key '20131613130' appears twice: entry 1; entry 2"),
        ("gqa", GQA, b'"answer": "yes"', b'"answer": "yes", "answer": "no"',
         'the key "answer" appears twice'),
        ("vqav2", ANSWERS, b'"answer": "net"', b'"answer": "net", "\\u0061nswer": "x"',
         'the key "."?u0061nswer" appears twice'),
    ],
)  # fmt: skip
def test_a_json_key_that_appears_twice_is_refused(tmp_path, layout, file, old, new, message):
    write, reader, task = LAYOUTS[layout]
    path = write(tmp_path) / file
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        official.samples_of(reader, tmp_path)


def test_duplicate_training_rows_are_refused_whatever_is_drawn(tmp_path):
    root = official.vqav2(tmp_path)
    path = root / "v2_OpenEnded_mscoco_train2014_questions.json"
    content = json.loads(path.read_text())
    again("questions", 0, question="Another?")(content)
    path.write_text(json.dumps(content))
    for seed in range(3):
        with pytest.raises(InputError, match="the question_id 100000 appears twice"):
            official.pairs_of(VqaV2(), root, 1, seed)


def test_captions_on_which_annotators_agree_are_read_and_reported(tmp_path, caplog):
    change = again("annotations", 0, id="another")
    samples = read(tmp_path, "coco", CAPTIONS, change)
    assert len(samples[0].references) == 6
    assert "1 captions of 1 pictures in" in caplog.text
    assert "repeat another one of their picture word for word, first of 1;" in caplog.text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**63 + 5, -(2**80)])
def test_numbers_that_nobody_reads_may_be_anything(tmp_path, value):
    change = lambda c: c["images"][0].update(area=value)  # noqa: E731
    assert len(read(tmp_path, "coco", CAPTIONS, change)) == 3


def test_an_id_beyond_64_bits_is_read(tmp_path):
    def change(content):
        for row in content["annotations"][:5]:
            row["image_id"] = 2**63 + 5
        content["images"][0]["id"] = 2**63 + 5

    assert read(tmp_path, "coco", CAPTIONS, change)[0].id == str(2**63 + 5)


def whole(content):
    return lambda _: content


@pytest.mark.parametrize(
    ("layout", "file", "edit", "message"),
    [
        ("coco", CAPTIONS, lambda c: c["images"][1].update(id=float("nan")),
         r"images\[1\] has no 'id' of type int or str, but NaN in line 15"),
        ("coco", CAPTIONS, lambda c: c["images"][1].update(id=None), "int or str, but null"),
        ("coco", CAPTIONS, lambda c: c["images"][1].update(id=1.0), "int or str, but 1.0"),
        ("coco", CAPTIONS, lambda c: c["images"][1].update(id=True), "int or str, but true"),
        ("coco", CAPTIONS, lambda c: c["images"].insert(1, [7]), r"images\[1\] .* but \[7\]"),
        ("coco", CAPTIONS, lambda c: c.update(images={}), "has no list 'images'"),
        ("coco", CAPTIONS, lambda c: c["annotations"][2].update(caption=" \n"),
         r"the caption of annotations\[2\] is empty"),
        ("coco", CAPTIONS, lambda c: c["annotations"][2].update(caption="a\0b"),
         r"annotations\[2\] has invalid characters"),
        ("coco", CAPTIONS, lambda c: c["annotations"][2].update(caption="a \ud83d b"),
         r"annotations\[2\] has no 'caption' of type str in valid Unicode, but \"a .ud83d b"),
        ("coco", CAPTIONS, whole(["a"]), "has no list 'images'"),
        ("karpathy coco", COCO, lambda c: c["images"][0]["sentences"][1].update(raw=""),
         r"sentences\[1\] of images\[0\] is empty"),
        ("lavis coco", LAVIS, whole({"a": 1}), "is not a list"),
        ("lavis coco", LAVIS, lambda c: c[1].update(caption=["a", ""]), r"caption of \[1\] is e"),
        ("vqav2", QUESTIONS, lambda c: c["questions"][1].update(question=""),
         r"the question of questions\[1\] is empty"),
        ("vqav2", ANSWERS, lambda c: c["annotations"][1]["answers"][3].update(answer="\ud83d"),
         r"annotations\[1\] has an answer without text"),
        ("vqav2", ANSWERS, lambda c: c["annotations"][1].update(answer_type=7), "'answer_type'"),
        ("gqa", GQA, whole([]), "has no entries; it should be one object"),
        ("gqa", GQA, whole("text"), "a list or an object should start"),
        ("gqa", GQA, lambda c: c["20131613132"].update(question="\0"), "the question of entry"),
        ("token flickr", "results_20130124.token", lambda text: text + b"a.jpg#1\tx\0y\n",
         "line 36 has invalid characters"),
        ("token flickr", "results_20130124.token", lambda text: text + b"a" * 2**21,
         "line 36 has more than 1048576 bytes"),
        ("token flickr", "test.txt", lambda text: "a\n".encode("utf-16"), "is UTF-16 text"),
        ("token flickr", "test.txt", lambda text: text + b"\n\xe4.jpg", "line 4 is not UTF-8"),
    ],
)  # fmt: skip
def test_odd_content_is_refused_with_its_place(tmp_path, layout, file, edit, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, layout, file, edit, indent=1)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "token flickr"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"[" * 2**20, "(nested too deeply|has no list|has no entries)"),
        (b'{"a":' * 200_000, "(nested too deeply|is not a list|has no '(question|answer)')"),
        ('{"a": "ä"}'.encode("latin-1"), "line 1 is not UTF-8 text"),
        (json.dumps({"a": []}).encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
    ],
)
def test_files_that_are_not_json_are_refused_at_once(tmp_path, layout, content, message):
    write, reader, task = LAYOUTS[layout]
    root = write(tmp_path)
    for path in root.rglob("*.json"):
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        official.samples_of(reader, root)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("line_end", [b"\r\n", b"\r\n\r\n"])
def test_windows_line_ends_and_a_mark_change_nothing(tmp_path, layout, line_end):
    write, reader, task = LAYOUTS[layout]
    expected = official.samples_of(reader, write(tmp_path))
    for path in [*tmp_path.rglob("*.json"), *tmp_path.glob("*.t*")]:
        content = path.read_bytes()
        if path.suffix == ".json":
            content = json.dumps(json.loads(content), indent=1).encode()
        path.write_bytes(b"\xef\xbb\xbf" + content.replace(b"\n", line_end))
    assert official.samples_of(reader, tmp_path) == expected


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["pipe", "loop", "folder"])
def test_files_that_are_not_regular_are_skipped_by_name(tmp_path, layout, kind, caplog):
    """Opening a pipe would block forever."""
    write, reader, task = LAYOUTS[layout]
    root = write(tmp_path)
    for path in [*root.rglob("*.json"), *root.glob("*.t*")]:
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "loop":
            path.symlink_to(path.name)
        else:
            path.mkdir()
    with pytest.raises(InputError, match="(contains no data set|lacks)"):
        find_source(task, str(root)).samples()
    assert {"pipe": "named pipe", "loop": "not readable", "folder": "a folder"}[
        kind
    ] in caplog.text
    with pytest.raises(InputError):
        official.samples_of(reader, root)
    assert official.pairs_of(reader, root, 5, 0) is None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_training_pictures_that_are_not_files_are_not_drawn(tmp_path, layout):
    write, reader, task = LAYOUTS[layout]
    root = write(tmp_path)
    pictures = list(dict.fromkeys(s.image.path for s in official.pairs_of(reader, root, 99, 0)))
    pictures[0].unlink()
    pictures[0].symlink_to(pictures[0].name)
    pictures[1].unlink()
    os.mkfifo(pictures[1])
    drawn = {s.image.path for s in official.pairs_of(reader, root, 99, 0)}
    assert drawn == set(pictures[2:])
