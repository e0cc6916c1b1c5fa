"""Calibration data of their own, mixed by weight and kept apart from what is scored."""

import hub_files as hub
import pytest

from mmq.config import TaskOptions
from mmq.data.calibration_mix import Part, parse_mix
from mmq.data.draw import draw_data
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
    drawn = draw(scored, f"{a}:0.7,{b}:0.3")
    answers = [sample.answers[0] for sample in drawn.calibration]
    assert (answers.count("a"), answers.count("b")) == (7, 3)
    assert len(drawn.samples) == 9


def test_a_folder_with_a_training_split_gives_that(tmp_path):
    scored = table(tmp_path, "s", [hub.png()])
    root = hub.textvqa(tmp_path / "textvqa")
    drawn = draw(scored, str(root), count=4)
    assert {image.path.name[:5] for s in drawn.calibration for image in s.images} == {"train"}


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
    drawn = draw_data(options, "vqa", calibrated=True)
    digests = [sample.image.digest() for sample in drawn.samples]
    ids = [sample.image_id for sample in drawn.samples]
    assert len({*digests}) == len({*ids}) < len(ids)
    assert not {*digests} & {sample.image.digest() for sample in drawn.calibration}
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
