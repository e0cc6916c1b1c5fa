"""Parquet folders as the hub has them are recognized and read, set by set."""

import hub_files as hub
import pytest
from mmq_plugins.datasets import hub_sets
from mmq_plugins.datasets.hub_gqa import GqaHub

from mmq.contracts import Splits
from mmq.data.source import find_source
from mmq.errors import InputError
from mmq.testing import DatasetContract

# name -> reader, writer, task, splits, samples of the evaluation split
SETS = {
    "vqav2-hub": (hub_sets.VqaV2Hub, hub.vqav2, "vqa", Splits("validation", "train"), 4),
    "gqa-hub": (GqaHub, hub.gqa, "gqa", Splits("testdev_balanced", "train_balanced"), 5),
    "coco-hub": (hub_sets.CocoHub, hub.coco, "captioning", Splits("validation"), 4),
    "flickr30k-hub": (
        hub_sets.Flickr30kHub, hub.flickr30k, "retrieval", Splits("test", "train"), 3,
    ),
    "textvqa": (hub_sets.TextVqa, hub.textvqa, "vqa", Splits("validation", "train"), 4),
    "chartqa": (hub_sets.ChartQa, hub.chartqa, "short-answer", Splits("test", "train"), 4),
    "docvqa": (hub_sets.DocVqa, hub.docvqa, "short-answer", Splits("validation"), 4),
    "infographicvqa": (
        hub_sets.InfographicVqa, hub.infographicvqa, "short-answer", Splits("validation"), 4,
    ),
    "ocrbench": (hub_sets.OcrBench, hub.ocrbench, "short-answer", Splits("test"), 4),
    "mmmu": (hub_sets.Mmmu, hub.mmmu, "choice", Splits("validation", "dev"), 6),
    "mmbench": (hub_sets.MmBench, hub.mmbench, "choice", Splits("dev"), 4),
    "mmstar": (hub_sets.MmStar, hub.mmstar, "choice", Splits("mmstar"), 4),
    "pope": (hub_sets.Pope, hub.pope, "yes-no", Splits("test"), 4),
    "ai2d": (hub_sets.Ai2d, hub.ai2d, "choice", Splits("test"), 4),
}  # fmt: skip


class HubContract(DatasetContract):
    name = ""

    def make(self):
        return SETS[self.name][0]()

    def root(self, tmp_path):
        return SETS[self.name][1](tmp_path)

    def test_it_is_recognized_without_being_named(self, folder):
        _, _, task, splits, count = SETS[self.name]
        source = find_source(task, str(folder))
        assert source.name == self.name
        assert source.reader.splits(source.root) == splits
        assert len(source.samples()) == count


for _name in SETS:
    globals()[f"Test_{_name.replace('-', '_')}"] = type(
        f"Test_{_name}", (HubContract,), {"name": _name}
    )


def samples(root, task):
    return find_source(task, str(root)).samples()


def test_vqav2_shares_a_picture_between_its_questions_and_reads_all_answers(tmp_path):
    rows = samples(hub.vqav2(tmp_path), "vqa")
    assert rows[0].images == rows[1].images != rows[2].images
    assert rows[0].answers == ("2",) * 10
    assert rows[0].answer_type == "number"


def test_gqa_joins_questions_and_pictures_and_names_a_missing_one(tmp_path):
    rows = samples(hub.gqa(tmp_path), "gqa")
    assert rows[0].images == rows[3].images
    assert rows[0].types == (("structural", "verify"), ("semantic", "obj"))
    images = tmp_path / "testdev_balanced_images" / "testdev-00000-of-00001.parquet"
    hub.write(images, [{"id": "other", "image": hub.cell()}])
    with pytest.raises(InputError, match=r"row 1 .* is about the picture testdev0, which is not"):
        samples(tmp_path, "gqa")


def test_mmmu_has_several_pictures_and_open_questions(tmp_path):
    rows = samples(hub.mmmu(tmp_path), "choice")
    assert [len(row.images) for row in rows[:3]] == [1, 2, 1]
    assert rows[0].options == ()
    assert rows[0].answers == ("24",)
    assert rows[1].options == ("one", "two's", "3")
    assert rows[1].rule == "mmmu"


def test_mmbench_leaves_out_missing_options_and_puts_the_hint_first(tmp_path):
    rows = samples(hub.mmbench(tmp_path), "choice")
    assert rows[0].options == ("x", "y")
    assert rows[0].question == "Look.\nWhich 0?"
    assert rows[1].options == ("x", "y", "z")
    assert rows[1].question == "Which 1?"


def test_several_configurations_are_listed_with_a_call_that_works(tmp_path):
    with pytest.raises(InputError, match=r"several configurations: cn, en.*--data .*/cn"):
        samples(hub.mmbench(tmp_path, ("en", "cn")), "choice")
    assert len(samples(tmp_path / "en", "choice")) == 4


def test_mmstar_reads_the_options_in_its_questions(tmp_path):
    row = samples(hub.mmstar(tmp_path), "choice")[0]
    assert row.listed
    assert row.options == ("a cat", "a dog", "none", "4")
    assert row.answers == ("B",)


def test_ai2d_counts_options_from_zero_whatever_their_texts_are(tmp_path):
    assert samples(hub.ai2d(tmp_path), "choice")[0].answers == ("C",)


def test_splits_of_which_none_is_usually_scored_are_named(tmp_path):
    row = {"id": "1", "question": "Is there a dog?", "answer": "no", "image_source": "a",
           "image": hub.cell(), "category": "random"}  # fmt: skip
    for split in ("random", "popular"):
        hub.write(tmp_path / "Full" / f"{split}-00000-of-00001.parquet", [row])
    with pytest.raises(InputError, match=r"the splits popular, random; pass the file of one"):
        samples(tmp_path / "Full", "yes-no")


def test_data_sets_bring_the_metric_of_their_authors(tmp_path):
    metrics = {"chartqa": "relaxed", "docvqa": "anls", "ocrbench": "contains"}
    for name, metric in metrics.items():
        root = SETS[name][1](tmp_path / name)
        assert samples(root, "short-answer")[0].metric == metric


def test_the_other_copies_of_chartqa_and_flickr30k_are_read(tmp_path, caplog):
    rows = samples(hub.chartqa_m4(tmp_path / "m4"), "short-answer")
    assert rows[0].question == "How much 0?"
    assert rows[0].answers == ("14",)
    one = hub.cell()
    hub.write(
        tmp_path / "lmms" / "data" / "test-00000-of-00001.parquet",
        [{"image": one, "caption": ["a", "b"], "sentids": ["1", "2"], "img_id": "5"}],
    )
    assert samples(tmp_path / "lmms", "retrieval")[0].references == ("a", "b")
    assert "no column 'split'" in caplog.text


def test_the_hubs_own_conversion_has_a_folder_per_split(tmp_path):
    data = hub.vqav2(tmp_path) / "data"
    for split, files in (("validation", 2), ("partial-train", 1)):
        folder = tmp_path / "default" / split
        folder.mkdir(parents=True)
        for k, path in enumerate(sorted(data.glob(f"{split.removeprefix('partial-')}-*"))):
            path.rename(folder / f"{k:04d}.parquet")
        assert len(list(folder.iterdir())) == files
    source = find_source("vqa", str(tmp_path))
    assert source.name == "vqav2-hub"
    assert source.reader.splits(source.root) == Splits("validation", "train")
    assert len(source.samples()) == 4


def test_answers_may_be_one_object_of_lists_as_older_tools_wrote_them(tmp_path):
    row = {"question_id": 1, "image_id": 2, "question": "How many?", "answer_type": "number"}
    row |= {"answers": {"answer": ["2", "two"], "answer_id": [1, 2]}, "image": hub.cell()}
    hub.write(tmp_path / "validation.parquet", [row])
    assert samples(tmp_path, "vqa")[0].answers == ("2", "two")


def test_chartqas_authors_copy_is_scored_as_chartqa(tmp_path):
    row = {"imgname": "1.png", "query": "How much?", "label": "3", "type": "human"}
    hub.write(tmp_path / "test.parquet", [row | {"image": hub.png()}])
    (sample,) = samples(tmp_path, "short-answer")
    assert (sample.metric, sample.answer_type) == ("relaxed", "human")


def test_a_column_of_splits_without_training_gives_none(tmp_path):
    row = {"image": hub.cell(), "caption": ["a"], "img_id": "1", "split": "test"}
    hub.write(tmp_path / "test.parquet", [row])
    source = find_source("retrieval", str(tmp_path))
    assert source.reader.splits(source.root) == Splits("test")


def test_a_missing_shard_is_reported(tmp_path, caplog):
    (hub.pope(tmp_path) / "data" / "test-00000-of-00001.parquet").rename(
        tmp_path / "data" / "test-00000-of-00003.parquet"
    )
    assert len(samples(tmp_path, "yes-no")) == 4
    assert "only 1 of the 3 files" in caplog.text


def test_another_task_is_refused_with_a_command_that_works(tmp_path):
    hub.chartqa(tmp_path)
    with pytest.raises(InputError, match="is chartqa, which has no samples.*--task short-answer"):
        samples(tmp_path, "vqa")


def test_answers_that_are_not_public_are_named(tmp_path):
    row = {
        "questionId": "1", "question": "What?", "image": hub.cell(), "docId": 1, "answers": None,
    }  # fmt: skip
    hub.write(tmp_path / "test-00000-of-00001.parquet", [row])
    with pytest.raises(InputError, match="1 of 1 rows have no answer: row 1 .*split with answers"):
        samples(tmp_path, "short-answer")
