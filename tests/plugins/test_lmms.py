"""Tasks of lmms-eval by name: scores as its own run gives them, through mmq's requests."""

import hashlib
import io
import pickle
import random
from importlib.util import find_spec

import pyarrow.parquet as pq
import pytest
from hub_files import write
from lmms_reference import reference, silent
from mmq_plugins.datasets.lmms import Lmms as LmmsData
from mmq_plugins.lmms import task_files
from PIL import Image

from mmq.cli import main
from mmq.contracts import VisionLanguageModel, registry
from mmq.contracts.evaluator import Evaluator
from mmq.contracts.options import build
from mmq.data.image_checks import check_images
from mmq.data.source import find_source
from mmq.data.subsets import subset
from mmq.errors import InputError
from mmq.evaluation.generating import Task, calibration_pairs, evaluate, generate_outputs
from mmq.studies.pruning import can_prune
from mmq.testing import DatasetContract, EvaluatorContract

pytestmark = pytest.mark.skipif(
    not find_spec("lmms_eval"), reason="lmms-eval is not installed: make test-lmms"
)
ROWS = 24
WORDS = ("yes", "no", "12", "12.3", "Red car.", "B", "A", "a stop\nsign", "(C)", "")
LETTERS = ("A", "B", "(C) three", "C", "B.")


class Guessing(VisionLanguageModel):
    """Answers that depend on the prompt and on every pixel."""

    def __init__(self, words=WORDS):
        self.words = words

    def generate(self, requests, config, progress):
        return [self._answer(request) for (request,) in progress([[r] for r in requests], "ask")]

    def _answer(self, request):
        hashed = hashlib.sha256(request.prompt.encode())
        for image in request.images:
            hashed.update(image.open().tobytes())
        return self.words[hashed.digest()[0] % len(self.words)]


def picture(rng):
    data = io.BytesIO()
    Image.frombytes("RGB", (9, 7), rng.randbytes(189)).save(data, "PNG")
    return {"bytes": data.getvalue(), "path": None}


def chartqa(rng, k):
    kind = rng.choice(["human_test", "augmented_test"])
    return {"type": kind, "question": f"How many in {k}?", "answer": rng.choice(["12", "yes"])}


def ok_vqa(rng, k):
    answers = [rng.choice(["12", "Red car.", "a stop sign"]) for _ in range(10)]
    return {"question_id": k, "question": f"What is {k}?", "answers": answers, "answer": ""}


def pope(rng, k):
    answer = rng.choice(["yes", "no"])
    return {"question_id": str(k), "question": f"Is there a {k}?", "answer": answer}


def ocrbench(rng, k):
    kind = rng.choice(["Scene Text-centric VQA", "Doc-oriented VQA"])
    return {
        "dataset": "x", "question": f"Read {k}", "question_type": kind,
        "answer": [rng.choice(["12", "stop"])],
    }  # fmt: skip


def mmmu(rng, k):
    is_open = rng.random() < 0.3
    return {
        "id": f"validation_Art_{k}", "question": f"Which <image 1> is {k}?",
        "options": "[]" if is_open else "['one', 'two', 'three']",
        "question_type": "open" if is_open else "multiple-choice",
        "answer": "12" if is_open else rng.choice("ABC"),
    }  # fmt: skip


TASKS = {  # name of the task: its rows, split, and column of the picture
    "chartqa": (chartqa, "test", "image"),
    "ok_vqa_val2014": (ok_vqa, "val2014", "image"),
    "pope": (pope, "test", "image"),
    "ocrbench": (ocrbench, "test", "image"),
    "mmmu_val": (mmmu, "validation", "image_1"),
}


def write_task(root, name, splits=()):
    """The task's parquet files, as the hub has them."""
    make, split, column = TASKS[name]
    for each in (split, *splits):
        rng = random.Random(each)
        rows = [make(rng, k) | {column: picture(rng)} for k in range(ROWS)]
        write(root / "data" / f"{each}-00000-of-00001.parquet", rows)
    return root / "data" / f"{split}-00000-of-00001.parquet"


def with_metadata(path, column):
    """The file as `datasets` writes it, which declares which columns are pictures."""
    from datasets import Dataset
    from datasets import Image as Picture

    declared = path.parent / f"declared-{path.name}"
    Dataset(pq.read_table(path)).cast_column(column, Picture()).to_parquet(declared)
    return declared


def evaluator_of(name, **options):
    return build(registry.load_class("evaluator", f"lmms:{name}", Evaluator), options)


def samples_of(name, root):
    return find_source(f"lmms:{name}", str(root)).samples()


@pytest.mark.parametrize("name", TASKS)
def test_scores_are_those_of_lmms_eval_on_the_same_rows(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)  # lmms-eval writes reports there
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    file = write_task(tmp_path / "set", name)
    everything = samples_of(name, tmp_path / "set")
    samples = subset(everything, 15, seed=3)
    # without a letter to read, MMMU guesses at random, and lmms-eval by the order of the rows
    model = Guessing(LETTERS if name == "mmmu_val" else WORDS)
    evaluator = evaluator_of(name)
    evaluator.check_samples(samples, everything)
    with Task(evaluator, samples, everything) as task:
        evaluation = evaluate(task, model, silent)
        assert evaluate(task, model, silent).metrics == evaluation.metrics  # nothing adds up
    ids = [int(sample.id) for sample in samples]
    declared = with_metadata(file, TASKS[name][2])
    expected = reference(name, [declared], TASKS[name][1], ids, evaluator, model)
    expected.pop("submission", None)
    observed = {k.partition("/")[2]: m.value for k, m in evaluation.metrics.items()}
    assert {k for k, value in expected.items() if isinstance(value, float)} >= {*observed}
    assert observed == pytest.approx({name: expected[name] for name in observed}, abs=1e-12)
    assert 0 < evaluation.score.value < 1


@pytest.fixture(scope="module")
def chartqa_folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("chartqa")
    write_task(root, "chartqa", splits=["train"])
    return root


class TestLmmsData(DatasetContract):
    def make(self):
        return LmmsData("chartqa")

    def root(self, tmp_path):
        write_task(tmp_path, "chartqa", splits=["train"])
        return tmp_path


class TestLmms(EvaluatorContract):
    @pytest.fixture(autouse=True, scope="class")
    def _folder(self, chartqa_folder):
        type(self).folder = chartqa_folder

    def make(self):
        return evaluator_of("chartqa", num_beams=1, max_new_tokens=2)

    def samples(self):
        return tuple(samples_of("chartqa", self.folder))


def test_a_command_calibrates_on_the_training_split_and_scores_a_seeded_subset(
    chartqa_folder, store_uri, capsys
):
    options = {
        "task": "lmms:chartqa", "data": chartqa_folder, "limit": 6, "bits": "llm=4",
        "quantizer": "gptq", "calibration-samples": 4, "max-new-tokens": 2, "num-beams": 1,
    }  # fmt: skip
    main(["trial", *(part for k, v in options.items() for part in (f"--{k}", str(v)))])
    assert "lmms-chartqa/relaxed_overall" in capsys.readouterr().out


def test_trials_of_a_mean_can_be_pruned_and_those_of_other_metrics_cannot(tmp_path):
    write_task(tmp_path / "pope", "pope")
    write_task(tmp_path / "chartqa", "chartqa")
    for name, expected in (("pope", False), ("chartqa", True)):
        samples = samples_of(name, tmp_path / name)
        with Task(evaluator_of(name), samples, samples) as task:
            assert can_prune(task) == expected
            evaluation = evaluate(task, Guessing(), silent)
        outputs = [prediction.text for prediction in evaluation.predictions]
        values = task.evaluator.scorer(samples).values(samples[3:7], outputs[3:7])
        assert values == list(evaluation.per_sample[evaluation.primary])[3:7]
        assert evaluation.score.low < evaluation.score.value < evaluation.score.high


def test_the_metric_can_be_chosen(tmp_path):
    write_task(tmp_path, "pope")
    samples = samples_of("pope", tmp_path)
    with Task(evaluator_of("pope", metric="pope_f1_score"), samples, samples) as task:
        evaluation = evaluate(task, Guessing(("yes", "no")), silent)
    assert evaluation.primary == "lmms-pope/pope_f1_score"
    assert evaluation.score.low is None  # it is not a mean


def test_prompts_and_decoding_are_those_of_the_task(chartqa_folder):
    model, evaluator = Guessing(), evaluator_of("chartqa")
    samples = samples_of("chartqa", chartqa_folder)
    protocol = evaluator.protocol(model.protocol(evaluator.answer_format))
    (request, answer), *_ = calibration_pairs(evaluator, samples, protocol)
    assert request.prompt == "How many in 0?\nAnswer the question with a single word."
    assert answer == samples[0].row["answer"]
    assert protocol.config.max_new_tokens == 16
    assert evaluator_of("chartqa", max_new_tokens=3).protocol(protocol).config.max_new_tokens == 3


def test_outputs_keep_their_lines_and_end_at_the_tasks_stops(tmp_path):
    write_task(tmp_path, "ok_vqa_val2014")
    samples = samples_of("ok_vqa_val2014", tmp_path)[:1]
    model = Guessing(("a\nstop ASSISTANT: no",))
    outputs = generate_outputs(evaluator_of("ok_vqa_val2014"), model, samples, silent)
    assert outputs == ["a\nstop "]


def test_the_task_its_configuration_and_the_version_of_lmms_eval_identify_an_evaluator():
    first, second = (evaluator_of(name).effective_options(None) for name in ("pope", "chartqa"))
    assert first["lmms_eval"] == second["lmms_eval"]
    assert first["lmms_config"] != second["lmms_config"]
    evaluator = evaluator_of("chartqa", max_new_tokens=3)
    assert evaluator.task == "lmms:chartqa"
    assert pickle.loads(pickle.dumps(evaluator)) == evaluator
    assert registry.identity("evaluator", type(evaluator)).name == "lmms"


def test_pictures_are_read_only_when_they_are_used(tmp_path):
    rows = [chartqa(random.Random(k), k) | {"image": picture(random.Random(k))} for k in range(3)]
    rows[2]["image"]["bytes"] = b"damaged"
    write(tmp_path / "data" / "test-00000-of-00001.parquet", rows)
    samples = samples_of("chartqa", tmp_path)
    assert check_images(samples[:2], quiet=True)
    with pytest.raises(InputError, match="row 2"):
        check_images(samples, quiet=True)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("chrtqa", "Did you mean lmms:chartqa"),
        ("mmmu", "lmms:mmmu_val, lmms:mmmu_test"),
        ("mmvet", "asks another model"),
        ("gsm8k", "no pictures"),
        ("videomme", "videos"),
        ("hellaswag", "output type is multiple_choice"),
        ("textcaps_val", "--task captioning"),
        ("gqa", "downloads other data"),
    ],
)
def test_a_task_that_cannot_be_scored_is_refused_with_the_reason(name, reason):
    with pytest.raises(InputError, match=reason):
        evaluator_of(name)


def test_other_input_errors_name_what_to_do(chartqa_folder, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="e.g. --task lmms:chartqa"):
        build(registry.load_class("evaluator", "lmms", Evaluator), {})
    with pytest.raises(InputError, match="no variant 'chartqa'"):
        registry.load_class("evaluator", "vqa:chartqa", Evaluator)
    with pytest.raises(InputError, match="choose from relaxed_overall"):
        evaluator_of("chartqa", metric="accuracy")
    with pytest.raises(InputError, match="validation-.*huggingface.co/datasets/lmms-lab"):
        find_source("lmms:mmmu_val", str(chartqa_folder), dataset="lmms").samples()
    write(tmp_path / "test.parquet", [{"image": picture(random.Random(0)), "query": "what?"}])
    with pytest.raises(InputError, match="cannot read .*question"):
        samples_of("chartqa", tmp_path)


def test_a_value_above_the_declared_one_is_refused_before_any_model_is_loaded(chartqa_folder):
    samples = samples_of("chartqa", chartqa_folder)
    with pytest.raises(InputError, match="--max-value"):
        evaluator_of("chartqa", max_value=0.5).check_samples(samples, samples)


def test_without_lmms_eval_the_error_has_the_commands_that_install_it(monkeypatch):
    monkeypatch.setattr(task_files, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="mmq.lmms.* && pip install --no-deps lmms-eval=="):
        task_files.tasks_folder()
