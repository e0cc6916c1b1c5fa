"""Calibration pairs are seeded, and no evaluated picture is among them."""

import shutil
from dataclasses import replace

import official_files as official
import pytest
from mlflow import MlflowClient
from mmq_plugins.quantizers.gptq import Gptq
from mmq_plugins.quantizers.rtn import Rtn

from mmq.cli import main
from mmq.config import EvalOptions
from mmq.data.calibration_split import check_apart, draw_calibration
from mmq.data.source import find_source
from mmq.data.subsets import subset
from mmq.errors import InputError
from mmq.prepare import build_plugins, prepare, prepare_quantizers


@pytest.fixture
def source(tmp_path):
    """40 questions on 20 pictures; 24 on 12 pictures in the training split."""
    pictures = {"val2014": range(1, 21), "train2014": range(100, 112)}
    return find_source("vqa", str(official.vqav2(tmp_path, pictures)))


@pytest.fixture
def untrained(source):
    """The same without the training split."""
    shutil.rmtree(source.root / "train2014")
    return source


def draw(source, limit=0, count=8, seed=0):
    everything = source.samples()
    samples = subset(everything, limit, seed)
    return samples, *draw_calibration(source, everything, samples, count, seed)


def images_of(samples):
    return {sample.image_id for sample in samples}


def test_pairs_come_from_the_training_split(source):
    before, samples, pairs = draw(source)
    assert samples == before
    assert len(pairs) == 8
    assert all(pair.image.path.parent.name == "train2014" for pair in pairs)
    assert draw(source)[2] == pairs != draw(source, seed=1)[2]


def test_without_a_training_split_pairs_come_from_what_the_limit_left_out(untrained, caplog):
    before, samples, pairs = draw(untrained, limit=6)
    assert samples == before
    assert len(pairs) == 8
    assert not images_of(pairs) & images_of(samples)
    assert not caplog.text


def test_where_too_few_are_left_out_samples_are_held_out_of_the_evaluation(untrained, caplog):
    before, samples, pairs = draw(untrained)
    assert len(pairs) == 8
    assert len(samples) == 32
    assert [s for s in before if s in samples] == samples
    assert not images_of(pairs) & images_of(samples)
    assert "8 of 40 samples (4 pictures) are held out of the evaluation" in caplog.text


def test_where_all_training_pictures_are_missing_samples_are_held_out(source, caplog):
    for path in (source.root / "train2014").iterdir():
        path.unlink()
    _, samples, pairs = draw(source)
    assert len(pairs) == 8
    assert len(samples) == 32
    assert all(pair.image.path.parent.name == "val2014" for pair in pairs)
    assert "24 of 24 training samples have no picture" in caplog.text


def cut(root):
    """Only the test pictures, and half of a training file."""
    for path in [*(root / "images").iterdir()]:
        if not path.name.startswith("n"):
            path.unlink()
    path = root / "questions1.2" / "train_balanced_questions.json"
    path.write_bytes(path.read_bytes()[:2000])


def test_a_data_free_quantizer_reads_no_training_split(tmp_path):
    """Nor does it cost samples where there is none."""
    root = official.gqa(tmp_path)
    cut(root)
    options = EvalOptions(task="gqa", data=str(root))
    prepared = prepare(options, {}, lambda parts: [])
    assert len(prepared.samples) == 6
    assert prepared.calibration == []
    with pytest.raises(InputError, match="train_balanced_questions.json is not readable JSON"):
        prepare(replace(options, quantizer="gptq"), {}, lambda parts: [])


def test_never_more_than_half_of_the_pictures_are_held_out(untrained, caplog):
    _, samples, pairs = draw(untrained, count=128)
    assert len(samples) == len(pairs) == 20
    assert not images_of(pairs) & images_of(samples)
    assert "20 pairs; 128 were requested" in caplog.text


def test_a_single_picture_is_too_few_to_calibrate(tmp_path):
    source = find_source("vqa", str(official.vqav2(tmp_path, {"val2014": [1]})))
    with pytest.raises(InputError, match="has no training split, and too few pictures"):
        draw(source)
    with pytest.raises(InputError, match="calibration_samples: 0, but this quantizer needs"):
        draw(source, count=0)


def test_an_evaluated_picture_under_another_name_is_refused(source):
    evaluated, train = source.root / "val2014", source.root / "train2014"
    shutil.copy(
        evaluated / "COCO_val2014_000000000007.jpg", train / "COCO_train2014_000000000103.jpg"
    )
    options = EvalOptions(data=str(source.root), quantizer="gptq")
    with pytest.raises(InputError, match="000000000103.jpg is evaluated too, as .*000000000007"):
        prepare(options, {}, lambda parts: [])
    prepare(replace(options, quantizer="rtn"), {}, lambda parts: [])


def test_a_held_out_pair_is_left_out_if_its_picture_is_evaluated_under_another_name(
    untrained, caplog
):
    folder = untrained.root / "val2014"
    first, *others = sorted(folder.iterdir())
    for path in others[:9]:
        shutil.copy(first, path)
    options = EvalOptions(data=str(untrained.root), quantizer="gptq", calibration_samples=8)
    prepared = prepare(options, {}, lambda parts: [])
    digests = [
        {s.image.digest() for s in part} for part in (prepared.calibration, prepared.samples)
    ]
    assert digests[0]
    assert not digests[0] & digests[1]
    assert "are left out" in caplog.text


def test_calibration_data_that_nothing_reads_is_reported(source, caplog):
    prepare(EvalOptions(data=str(source.root), calibration_data="x.csv"), {}, lambda parts: [])
    assert "calibration-data: not read, since nothing is calibrated here" in caplog.text


def test_an_evaluated_sample_itself_is_refused(source):
    samples = source.samples()
    hashes = {sample.image: sample.image.path.name for sample in samples}
    with pytest.raises(InputError, match="000000000020.jpg is evaluated too; scores on it"):
        check_apart(samples[-1:], samples, hashes)
    check_apart(samples[-2:], samples[:-2], hashes)


def test_unused_calibration_pairs_do_not_change_the_eval_spec(source):
    options = EvalOptions(data=str(source.root), calibration_samples=8)
    alone = prepare(options, {}, lambda parts: [])
    both = [("rtn", Rtn()), ("gptq", Gptq())]
    beside, _ = prepare_quantizers(options, build_plugins(options, {})[1], both, lambda parts: [])
    assert alone.eval_spec.key == beside.eval_spec.key
    assert alone.eval_spec.calibration == "" != beside.eval_spec.calibration
    assert len(beside.calibration) == beside.eval_spec.calibration_samples == 8
    assert alone.calibration == []


def test_used_calibration_pairs_are_part_of_the_eval_spec(source):
    options = EvalOptions(data=str(source.root), quantizer="gptq", calibration_samples=8)
    questions = [
        prepare(o, {}, lambda parts: []).eval_spec
        for o in (options, options, replace(options, calibration_samples=9))
    ]
    assert questions[0].key == questions[1].key != questions[2].key
    assert questions[0].data_fingerprint == questions[2].data_fingerprint
    assert {"calibration", "calibration_samples"} <= set(questions[0].identity())


def test_the_run_shows_the_fingerprints_of_both(source, store_uri, monkeypatch):
    monkeypatch.setattr("signal.signal", lambda *arguments: None)
    command = ["trial", "--data", str(source.root), "--limit", "10%", "--quantizer", "gptq"]
    main([*command, "--bits", "llm=16", "--calibration-samples", "8", "--num-beams", "1"])
    client = MlflowClient(store_uri)
    (run,) = client.search_runs([client.get_experiment_by_name("mmq").experiment_id])
    params = run.data.params
    assert params["data.samples"] == "4"
    assert params["calibration.samples"] == "8"
    assert params["calibration.used"] == "True"
    assert len(params["calibration.fingerprint"]) == len(params["data.fingerprint"]) == 20
    assert params["calibration.fingerprint"] != params["data.fingerprint"]
