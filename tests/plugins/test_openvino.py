"""Embedded models in OpenVINO: weights, answers and bytes are those of the simulation."""

import builtins
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from asking import picture, silent
from exporting import session_for
from gguf_models import LLAVA, answers, exported, loaded, pairs, rounded, simulate_, source_of
from mmq_plugins.embedded import blip2_checkpoint, retrieval_checkpoint
from mmq_plugins.targets import gguf_server, openvino_ask
from mmq_plugins.targets.openvino import OpenVino
from mmq_plugins.targets.openvino_file import Places
from mmq_plugins.targets.openvino_outline import split_lookup_
from mmq_plugins.targets.openvino_storage import constants, packed, stored_bits, values
from tiny_models import save_tiny
from torch.testing import assert_close

from mmq.contracts.target import ExportSource, WeightSpec
from mmq.errors import InputError
from mmq.models.skeleton import skeleton
from mmq.tensors.quantized_weight import QuantizedWeight

pytest.importorskip("openvino", reason="pip install 'mmq[openvino]'")
if transformers.__version__ < "5":
    pytest.skip("the target needs transformers 5", allow_module_level=True)
pytestmark = pytest.mark.xdist_group("openvino")  # one process: exports are shared
BLIP2, RETRIEVAL = str(blip2_checkpoint()), str(retrieval_checkpoint())
KINDS = [(32, True), (64, False), (0, True), (0, False)]  # group size, symmetric
WIDTHS = [8, 4, 5, 3, 6, 7, 2, 8]


def real_zero_point(weight, bits):
    """One scale and one real zero point."""
    low, high = weight.min(), weight.max()
    scale = ((high - low) / (2**bits - 1)).reshape(1, 1).float()
    zero = (-low / scale).float()
    codes = (weight / scale + zero).round().clamp(0, 2**bits - 1).to(torch.uint8)
    return QuantizedWeight(codes, scale, zero, weight.shape[1], bits)


def scaled(weight, bits):
    """Input scales as awq chooses them."""
    scale = torch.linspace(0.5, 2, weight.shape[1])
    return replace(rounded(weight * scale, bits, 64, False), input_scale=scale.half())


def scattered(weight, bits):
    """Groups whose inputs do not lie side by side, as with act-order."""
    order = torch.randperm(weight.shape[1], generator=torch.Generator().manual_seed(0))
    by_group = rounded(weight[:, order], bits, 32, False)
    back = torch.argsort(order)
    group = (torch.arange(len(order)) // 32)[back].to(torch.int32)
    return replace(by_group, codes=by_group.codes[:, back].contiguous(), group_index=group)


def one_by_one(model):
    """Every layer of a model quantized differently, by the layer's name."""
    weights = {}
    layers = [layer for component in model.components.values() for layer in component.layers]
    for number, layer in enumerate(layers):
        weight, bits = layer.module.weight.detach(), WIDTHS[number % len(WIDTHS)]
        kinds = [
            *(lambda w, b, kind=kind: rounded(w, b, *kind) for kind in KINDS),
            real_zero_point, scaled, scattered,
        ]  # fmt: skip
        if number % 9 < 8:  # the others stay at 16 bits
            weights[layer.name] = kinds[number % len(kinds)](weight, bits)
    return weights


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """Export a model with weights of every kind, once; folder, report, model and weights."""
    cached = {}

    def run(folder):
        if folder not in cached:
            model = loaded(folder)
            weights = one_by_one(model)
            out = tmp_path_factory.mktemp("openvino") / "out"
            report = exported(folder, model, weights, out, OpenVino())
            simulate_(model, weights)
            cached[folder] = out, report, model, weights
        return cached[folder]

    return run


@pytest.mark.parametrize("checkpoint", [LLAVA, BLIP2, RETRIEVAL])
def test_openvino_reads_every_kind_of_weight_bit_for_bit(checkpoint, export):
    folder, report, _, weights = export(checkpoint)
    read = dict(OpenVino().read_back(folder))
    assert read.keys() == report.stored_as.keys() == weights.keys() - report.unread
    assert all(torch.equal(read[name], weights[name].dequantize()) for name in read)


def test_a_graph_is_the_same_text_whatever_was_made_before_it():
    from openvino import Model, opset13

    def text():
        x = opset13.parameter([2], np.float32)
        y = opset13.relu(opset13.add(x, opset13.constant(np.float32([1, 2]))))
        y.get_rt_info()["fused_names_0"] = y.get_friendly_name()
        for node, name in ((x, "x"), (y, "y")):
            node.output(0).get_tensor().set_names({name})
        return Places().finish(Model([y], [x]))[0]

    assert text() == text()


def test_the_files_have_the_planned_size(export):
    folder, report, _, weights = export(LLAVA)
    on_disk = sum(path.stat().st_size for path in folder.iterdir())
    planned = OpenVino().planned_bytes(source_of(LLAVA, weights))
    assert planned == on_disk == sum(report.files.values())


@pytest.mark.parametrize(("checkpoint", "beams"), [(LLAVA, 1), (LLAVA, 3), (BLIP2, 5), (BLIP2, 1)])
def test_answers_are_those_of_the_simulation_with_beams_too(checkpoint, beams, export):
    folder, _, simulated, _ = export(checkpoint)
    changes = {"num_beams": beams, "batch_size": 4}
    with OpenVino().open(folder, "cpu") as engine:
        one, other = (answers(each, pairs(6), **changes) for each in (engine, simulated))
    assert one == other
    assert any(one)


def test_fast_precision_answers_too(export):
    folder, *_ = export(BLIP2)
    with OpenVino(precision="fast").open(folder, "cpu") as engine:
        assert all(answers(engine, pairs(3)))


def test_a_matcher_gives_the_scores_of_the_simulation(export):
    folder, _, simulated, _ = export(RETRIEVAL)
    images = [picture(image, str(k)) for k, (image, _) in enumerate(pairs(3))]
    texts = ["a red circle", "two blue squares and a green triangle", "nothing"]
    every = np.array([(i, t) for i in range(3) for t in range(3)])
    with OpenVino().open(folder, "cpu") as engine:
        for compute in (
            lambda model: model.embed_images(images, 2, silent),
            lambda model: model.embed_texts(texts, 2, silent),
            lambda model: torch.from_numpy(model.match(images, texts, every, 4, silent)),
        ):
            assert_close(compute(engine), compute(simulated), rtol=1e-3, atol=1e-3)


def test_layers_that_nothing_reads_are_left_out_and_reported(export):
    _, report, model, _ = export(LLAVA)
    assert {name.split(".layers.")[1].split(".")[0] for name in report.unread} == {"5"}
    assert "5 layers are not in the files" in report.notes[0]
    assert report.unread <= {layer.name for layer in model.components["vit"].layers}


def test_a_quantized_table_is_quantized_wherever_the_model_reads_it(tmp_path):
    session = session_for("embedded-blip2", "embed=8", "openvino", symmetric=True)
    report, _ = session.run(tmp_path / "out", 0)
    decoder = "language_model.model.decoder"
    read, layers = dict(OpenVino().read_back(tmp_path / "out")), session.layers()
    assert not report.unread  # positions, which OPT shifts before it looks them up, are read
    for name, table in (
        (f"{decoder}.embed_tokens", f"{decoder}.embed_tokens"),
        (f"{decoder}.embed_positions", f"{decoder}.embed_positions"),
        ("language_model.lm_head", f"{decoder}.embed_tokens"),  # tied
    ):
        assert torch.equal(read[name], layers.dequantized(table))


def test_a_layer_of_an_unknown_class_is_refused():
    class Doubled(torch.nn.Linear):
        def forward(self, values):
            return 2 * super().forward(values)

    with pytest.raises(InputError, match=r"cannot store 0 quantized: it is a Doubled"):
        split_lookup_(torch.nn.Sequential(Doubled(2, 2)), "0")


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("kind", [*KINDS, "real", "scaled", "scattered"])
def test_constants_take_the_planned_bytes_and_hold_the_codes(bits, kind):
    make = {"real": real_zero_point, "scaled": scaled, "scattered": scattered}.get(
        kind, lambda w, b: rounded(w, b, *kind)
    )
    weight = make(torch.randn(6, 192, generator=torch.Generator().manual_seed(0)), bits)
    spec, data = WeightSpec.of(weight), values(weight)
    parts = constants(spec, (6, 192))
    assert {part.part for part in parts} == data.keys()
    raw = {part.part: packed(part, data[part.part]) for part in parts}
    padding = 8 * 64 * len(parts)
    total = 8 * sum(map(len, raw.values()))
    assert total <= stored_bits((6, 192), spec) < total + padding
    width = {"u2": 2, "u4": 4, "u8": 8}[parts[0].type]
    flat = np.unpackbits(np.frombuffer(raw["codes"], np.uint8), bitorder="little")
    codes = flat.reshape(-1, width) @ (1 << np.arange(width))
    assert codes.tolist() == data["codes"].reshape(-1).tolist()


def test_a_killed_export_leaves_no_weights_under_their_name(tmp_path):
    def killed():
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        OpenVino().export(source_of(LLAVA, {}), killed(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_family_without_stages_is_refused_with_other_targets(tmp_path):
    folder = save_tiny("idefics3", tmp_path / "tiny")
    source = ExportSource(Path(folder), skeleton(str(folder)), "float32")
    with pytest.raises(InputError, match="cannot write Idefics3.*--target compressed-tensors"):
        OpenVino().planned_bytes(source)


def test_exact_is_refused_for_a_trial_in_16_bits():
    source = replace(source_of(LLAVA, {}), dtype="bfloat16")
    with pytest.raises(InputError, match="exact computes in float32.*--precision fast"):
        OpenVino().planned_bytes(source)


def test_a_missing_package_names_the_extra(export, monkeypatch):
    folder, *_ = export(LLAVA)
    real = builtins.__import__

    def missing(name, *rest, **options):
        if name.partition(".")[0] == "openvino":
            raise ImportError(name)
        return real(name, *rest, **options)

    for name in [name for name in sys.modules if name.partition(".")[0] == "openvino"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", missing)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r"pip install 'mmq\[openvino\]'"):
        next(OpenVino().read_back(folder))
    with pytest.raises(InputError, match=r"pip install 'mmq\[openvino\]'"):
        OpenVino().open(folder, "cpu").__enter__()


@pytest.mark.parametrize(
    ("program", "arguments"),
    [(openvino_ask, ["--image", "none.png"]), (gguf_server, ["--ask", "what"])],
    ids=["openvino_ask", "gguf_server"],
)
def test_a_folder_that_cannot_be_asked_is_one_line(tmp_path, monkeypatch, program, arguments):
    monkeypatch.setattr(sys, "argv", [program.__name__, str(tmp_path), *arguments])
    with pytest.raises(SystemExit, match="^Error: "):
        program.main()


def test_a_damaged_file_is_an_error_that_names_it(export, tmp_path):
    folder, *_ = export(LLAVA)
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "openvino_language_model.xml").unlink()
    (tmp_path / "openvino_language_model.xml").write_text("<net")
    with (
        pytest.raises(InputError, match=r"cannot load .*openvino_language_model\.xml"),
        OpenVino().open(tmp_path, "cpu"),
    ):
        pass


@pytest.mark.parametrize("checkpoint", [BLIP2, RETRIEVAL])
def test_the_cards_command_asks_the_model(checkpoint, export, tmp_path, monkeypatch, capsys):
    folder, *_ = export(checkpoint)
    image = tmp_path / "picture.png"
    pairs(1)[0][0].save(image)
    (command,) = OpenVino().commands(folder)
    words = command.replace("PICTURE.png", str(image)).split()
    assert words[:3] == ["python", "-m", openvino_ask.__name__]
    monkeypatch.setattr(sys, "argv", words[2:])
    openvino_ask.main()
    assert capsys.readouterr().out.strip()
