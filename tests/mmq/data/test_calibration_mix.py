"""Separate calibration data, mixed by weight and disjoint from the scored samples."""

import json

import hub_files as hub
import pytest

from mmq.config import TaskOptions
from mmq.data.calibration_mix import LONGEST, Part, parse_mix
from mmq.data.draw import draw_data
from mmq.data.source import find_texts
from mmq.errors import InputError


def table(folder, name, pictures):
    """A table with a question about each of these pictures' bytes."""
    folder.mkdir(exist_ok=True)
    lines = ["image,question,answer"]
    for k, picture in enumerate(pictures):
        (folder / f"{name}{k}.png").write_bytes(picture)
        lines.append(f"{name}{k}.png,What?,{name}")
    (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return str(folder / f"{name}.csv")


def draw(data, calibration_data, count=10):
    options = TaskOptions(
        data=str(data), calibration_data=calibration_data, calibration_samples=count
    )
    return draw_data(options, "vqa", calibrated=True)


def test_pairs_come_in_proportion_to_the_weights(tmp_path):
    scored, a, b = (table(tmp_path, name, [hub.png() for _ in range(9)]) for name in "sab")
    data = draw(scored, f"{a}:0.7,{b}:0.3")
    answers = [sample.answers[0] for sample in data.calibration]
    assert (answers.count("a"), answers.count("b")) == (7, 3)
    assert len(data.samples) == 9


def test_a_folder_with_a_training_split_gives_that(tmp_path):
    scored = table(tmp_path, "s", [hub.png()])
    root = hub.textvqa(tmp_path / "textvqa")
    data = draw(scored, str(root), count=4)
    assert {image.path.name[:5] for s in data.calibration for image in s.images} == {"train"}


def test_too_few_pairs_are_reported(tmp_path, caplog):
    scored, a = (table(tmp_path, name, [hub.png()]) for name in "sa")
    assert len(draw(scored, a).calibration) == 1
    assert "1 pairs from" in caplog.text


def test_a_picture_that_is_scored_is_refused_by_its_content(tmp_path):
    picture = hub.png()
    scored, a = table(tmp_path, "s", [picture]), table(tmp_path, "a", [picture])
    with pytest.raises(InputError, match=r"a0\.png is evaluated too, as .*s0\.png"):
        draw(scored, a)


def test_rows_that_repeat_a_picture_are_joined_and_kept_out_of_the_calibration(tmp_path, caplog):
    cells = [hub.cell(), hub.cell()]
    rows = [{"image": cells[k % 2], "question": f"{k}?", "answer": "x"} for k in range(10)] + [
        {"image": hub.cell(), "question": f"{k}?", "answer": "x"} for k in range(90)
    ]
    hub.write(tmp_path / "x.parquet", rows, group=20)
    options = TaskOptions(data=str(tmp_path / "x.parquet"), limit="50", calibration_samples=40)
    data = draw_data(options, "vqa", calibrated=True)
    digests = [sample.image.digest() for sample in data.samples]
    ids = [sample.image_id for sample in data.samples]
    assert len({*digests}) == len({*ids}) < len(ids)
    assert not {*digests} & {sample.image.digest() for sample in data.calibration}
    assert "are left out" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.csv:0", "weight above 0"),
        ("a.csv,a.csv:2", "given twice"),
        (",", "names no data"),
        ("nowhere.csv", "calibration_data: nowhere.csv: data: there is no file"),
    ],
)
def test_data_that_cannot_be_mixed_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        draw(table(tmp_path, "s", [hub.png()]), text)


def test_a_name_with_a_comma_or_a_colon_is_one_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a,b:2").write_text("")
    assert parse_mix("a,b:2") == [Part("a,b:2", 1.0)]


TEXTS = ["The red fox sleeps.", "A green bird sings, loudly."]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "\n\n".join(TEXTS)),
        ("b.txt", "\ufeff" + "\r\n".join(TEXTS)),
        ("c.csv", "n,text\n" + "\n".join(f'{k},"{text}"' for k, text in enumerate(TEXTS))),
        ("d.jsonl", "\n".join(json.dumps({"content": text}) for text in TEXTS)),
    ],
)
def test_texts_without_pictures_are_drawn_beside_pairs_in_proportion(tmp_path, name, content):
    scored, photos = (table(tmp_path, name, [hub.png() for _ in range(4)]) for name in "sp")
    (tmp_path / name).write_text(content, newline="")
    data = draw(scored, f"{photos}:0.5,{tmp_path / name}:0.5", count=4)
    assert [len(sample.images) for sample in data.calibration] == [1, 1, 0, 0]
    assert [sample.text for sample in data.calibration[2:]] == TEXTS


def test_parquet_texts_are_read_and_long_ones_are_cut_with_a_warning(tmp_path, caplog):
    hub.write(tmp_path / "wiki.parquet", [{"text": "word " * 2000}, {"text": None}])
    data = draw(table(tmp_path, "s", [hub.png()]), str(tmp_path / "wiki.parquet"), count=1)
    assert [len(sample.text) for sample in data.calibration] == [LONGEST]
    assert "1 texts" in caplog.text
    hub.write(tmp_path / "none.parquet", [{"text": ""}])
    with pytest.raises(InputError, match="no texts"):
        draw(table(tmp_path, "s", [hub.png()]), str(tmp_path / "none.parquet"))


@pytest.mark.parametrize("header", ["photo,question,answer", "x,question,answer", "x,text"])
def test_a_table_whose_cells_name_pictures_is_not_taken_for_texts(tmp_path, header):
    (tmp_path / "p.png").write_bytes(hub.png())
    (tmp_path / "p.csv").write_text(f"{header}\np.png" + ",a" * header.count(",") + "\n")
    assert find_texts(str(tmp_path / "p.csv")) is None
