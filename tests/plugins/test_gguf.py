"""The embedded LLaVA in llama.cpp: weights, answers and bytes are those of the simulation."""

import sys

import pytest
import torch
from asking import requests_for
from gguf_models import (
    LLAVA,
    answers,
    by_part,
    class_token_last,
    exported,
    loaded,
    pairs,
    quantized,
    simulate_,
    source_of,
    uniform,
)
from mmq_plugins.quantizers.rtn import Rtn
from mmq_plugins.targets.gguf import Gguf

from mmq.contracts.target import ExportSource
from mmq.contracts.vlm import GenerationConfig
from mmq.errors import InputError
from mmq.models.loading import load_model
from mmq.models.row_quantizer import quantizer_for
from mmq.models.skeleton import skeleton

pytest.importorskip("gguf", reason="needs mmq[gguf]")
pytest.importorskip("xllamacpp", reason="needs mmq[gguf]")

ALLOCATIONS = {
    "16": by_part(None, None, None),
    "2 in groups": uniform(2, 64, False),
    "3 in rows": uniform(3, 0, True),
    "4 in groups": uniform(4, 32, True),
    "4 in rows": uniform(4, 0, False),
    "5": uniform(5, 64, True),
    "6": uniform(6, 0, True),
    "7": uniform(7, 0, False),
    "8": uniform(8, 0, True),
    "mixed": by_part((5, 64, True), (6, 0, True), (5, 256, False)),
    "float32 scales": uniform(8, 32, True),
    "llm alone": by_part(None, (4, 32, True), (3, 64, False)),
}
COARSE = {  # K-quants round what they read per 256 values: answers differ
    "2 in rows": uniform(2, 0, True),
    "2 and 3 in rows": by_part((8, 0, True), (3, 0, True), (2, 256, False)),
}


@pytest.fixture(scope="module")
def model():
    return loaded(LLAVA)


@pytest.fixture(scope="module")
def questions():
    return pairs(6)


@pytest.fixture
def proven(model, tmp_path):
    """Export an allocation, compare weights and bytes; the folder and the report."""

    def prove(options):
        model.restore_()
        weights = quantized(model, options)
        promised = Gguf().planned_bytes(source_of(LLAVA, weights))
        report = exported(LLAVA, model, weights, tmp_path / "out")
        read = dict(Gguf().read_back(tmp_path / "out"))
        assert read.keys() == weights.keys() == report.stored_as.keys()
        assert all(torch.equal(read[name], w.dequantize()) for name, w in weights.items())
        on_disk = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
        assert promised == on_disk == sum(report.files.values())
        simulate_(model, weights)
        return tmp_path / "out", report

    yield prove
    model.restore_()


@pytest.mark.parametrize("name", ALLOCATIONS)
def test_weights_bytes_and_answers_are_those_of_the_simulation(name, model, questions, proven):
    folder, _ = proven(ALLOCATIONS[name])
    with class_token_last(model):
        simulated = answers(model, questions)
    with Gguf().open(folder, "cpu") as engine:
        assert answers(engine, questions) == simulated


def test_embeddings_heads_and_projectors_are_held_exactly_too(questions, tmp_path):
    parts, bits = ("embed", "projector", "head"), {"embed": 4, "projector": 5, "head": 8, "llm": 6}
    model = load_model(LLAVA, parts=parts)
    weights = {
        layer.name: quantizer_for(component, Rtn(32, symmetric=True)).quantize(
            layer.weight, bits[name]
        )
        for name, component in model.components.items()
        for layer in (component.layers if name in bits else ())
    }
    promised = Gguf().planned_bytes(source_of(LLAVA, weights, parts=parts))
    report = exported(LLAVA, model, weights, tmp_path / "out", parts=parts)
    assert promised == sum(report.files.values())
    read = dict(Gguf().read_back(tmp_path / "out"))
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[name], w.dequantize()) for name, w in weights.items())
    embed, head = (next(iter(model.components[name].layers)).name for name in ("embed", "head"))
    assert (report.stored_as[embed], report.stored_as[head]) == ("Q4_0", "Q8_0")
    simulate_(model, weights)
    with class_token_last(model), Gguf().open(tmp_path / "out", "cpu") as engine:
        assert answers(engine, questions) == answers(model, questions)


@pytest.mark.parametrize("name", COARSE)
def test_coarser_types_store_the_weights_too(name, proven):
    _, report = proven(COARSE[name])
    assert "TQ2_0" in report.stored_as.values() or "Q2_K" in report.stored_as.values()


def test_llama_cpp_reads_the_prompt_that_mmq_renders(model, questions, proven):
    folder, _ = proven(ALLOCATIONS["4 in groups"])
    (request,) = requests_for(model, [questions[0][0]], ["Is 1 __> 2, or <b>?"])
    with Gguf().open(folder, "cpu") as engine:
        assert engine.render(request) == model.render(request)


def test_llama_cpp_times_an_answer_of_any_length(model, questions, proven):
    folder, _ = proven(ALLOCATIONS["4 in groups"])
    (request,) = requests_for(model, [questions[0][0]], ["What is it?"])
    with Gguf().open(folder, "cpu") as engine:
        timing = engine.time_answer(request, GenerationConfig(max_new_tokens=3))
    assert timing.tokens == 3
    assert 0 < timing.decoding < timing.seconds
    assert Gguf().engine_version().startswith("xllamacpp ")


def test_the_report_notes_the_class_token_and_float32_scales(proven):
    _, report = proven(ALLOCATIONS["float32 scales"])
    assert any("25814" in note for note in report.notes)
    assert any("layers are stored as F32" in note for note in report.notes)


def test_rows_of_the_layers_alone_are_needed(model, tmp_path):
    """Layers that stay at 16 bits come from the checkpoint, in its dtype."""
    report = exported(LLAVA, model, {}, tmp_path / "out")
    import gguf

    tensors = gguf.GGUFReader(tmp_path / "out" / "model.gguf").tensors
    kinds = {t.name: t.tensor_type.name for t in tensors}
    assert kinds["blk.0.attn_q.weight"] == kinds["token_embd.weight"] == "F16"
    assert kinds["blk.0.attn_norm.weight"] == "F32"
    assert not report.stored_as


def test_an_interrupted_export_is_written_again(model, tmp_path):
    weights = quantized(model, uniform(4, 32, True))
    source = source_of(LLAVA, weights)
    (tmp_path / "out").mkdir()

    def killed():
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        Gguf().export(source, killed(), tmp_path / "out")
    left = (tmp_path / "out" / "model.gguf").read_bytes()
    assert not left.startswith(b"GGUF")  # nothing opens it
    for path in (tmp_path / "out").iterdir():
        path.rename(tmp_path / path.name)
    exported(LLAVA, model, weights, tmp_path / "again")
    assert (tmp_path / "again" / "model.gguf").read_bytes().startswith(b"GGUF")


def test_a_family_that_llama_cpp_lacks_is_refused_before_it_is_loaded():
    from mmq_plugins.embedded import blip2_checkpoint

    folder = blip2_checkpoint()
    with pytest.raises(InputError, match="cannot write Blip2ForConditionalGeneration by itself"):
        Gguf().planned_bytes(ExportSource(folder, skeleton(str(folder)), "float32"))


def test_beams_are_refused(model, questions, proven):
    folder, _ = proven(ALLOCATIONS["16"])
    with (
        Gguf().open(folder, "cpu") as engine,
        pytest.raises(InputError, match="llama.cpp decodes greedily"),
    ):
        answers(engine, questions, num_beams=5)


def test_a_damaged_file_is_an_error_with_what_llama_cpp_says(proven):
    folder, _ = proven(ALLOCATIONS["16"])
    with (folder / "model.gguf").open("r+b") as file:
        file.truncate(100_000)
    with (
        pytest.raises(InputError, match="cannot load .*not within the file bounds"),
        Gguf().open(folder, "cpu"),
    ):
        pass


def test_a_prompt_longer_than_the_context_is_an_error(questions, proven):
    folder, _ = proven(ALLOCATIONS["16"])
    picture = questions[0][0]
    with Gguf().open(folder, "cpu") as engine, pytest.raises(InputError, match="sample '0'"):
        answers(engine, [(picture, "what " * 3000)])


@pytest.mark.parametrize("package", ["gguf", "xllamacpp"])
def test_a_missing_package_names_the_extra(package, model, tmp_path, monkeypatch):
    exported(LLAVA, model, {}, tmp_path / "out")
    monkeypatch.setitem(sys.modules, package, None)
    use = {
        "gguf": lambda: next(Gguf().read_back(tmp_path / "out")),
        "xllamacpp": lambda: Gguf().open(tmp_path / "out", "cpu").__enter__(),
    }
    with pytest.raises(InputError, match=r"pip install 'mmq\[gguf\]'"):
        use[package]()


def test_the_commands_name_both_files(tmp_path):
    for command in Gguf().commands(tmp_path)[:2]:
        assert f"{tmp_path}/model.gguf" in command
        assert f"{tmp_path}/mmproj.gguf" in command
