"""An IR of optimum-intel is rewritten, each layer found in it by its values."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from gguf_families import save_smolvlm
from gguf_models import LLAVA, exported, loaded, rounded, source_of
from mmq_plugins.targets.openvino import OpenVino
from mmq_plugins.targets.openvino_tracing import Called, Input, trace

from mmq.errors import InputError

ov = pytest.importorskip("openvino", reason="pip install 'mmq[openvino]'")
if transformers.__version__ < "5":
    pytest.skip("the target needs transformers 5", allow_module_level=True)
pytestmark = pytest.mark.xdist_group("openvino")
GRAPHS = {"vit": "openvino_vision_embeddings_model", "llm": "openvino_language_model"}


def products(layers):
    """Every layer, applied to the first numbers of an input."""
    return lambda x: tuple(layer(x[:, : layer.in_features]) for layer in layers)


def write_ir(model, folder, compress=True):
    """Graphs with the linear layers of each component, as OpenVINO converts and saves them."""
    folder.mkdir()
    for component, stem in GRAPHS.items():
        layers = [layer.module for layer in model.components[component].layers]
        outputs = [layer.name for layer in model.components[component].layers]
        widest = max(layer.in_features for layer in layers)
        inputs = [Input("x", torch.zeros(2, widest), (-1, widest))]
        graph = trace(stem, Called(products(layers), *layers), inputs, outputs, {})
        ov.save_model(graph.model, folder / f"{stem}.xml", compress_to_fp16=compress)
    (folder / "config.json").write_text('{"written_by": "optimum-intel"}')
    (folder / "openvino_tokenizer.xml").write_text("<net/>")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A SmolVLM, whose graphs mmq does not trace."""
    folder = tmp_path_factory.mktemp("model") / "smolvlm"
    save_smolvlm(folder)
    return loaded(folder)


@pytest.fixture(scope="module")
def ir(model, tmp_path_factory):
    """Its IR with 16-bit weights."""
    folder = tmp_path_factory.mktemp("ir") / "fp16"
    write_ir(model, folder)
    return folder


@pytest.fixture(scope="module")
def weights(model):
    """Most layers quantized, with input scales and without; the others stay."""
    result = {}
    for component in model.components.values():
        for number, layer in enumerate(component.layers):
            weight, bits = layer.module.weight.detach(), (4, 3, 8, 2)[number % 4]
            if number % 7 == 6:
                continue
            result[layer.name] = rounded(weight, bits, 32 * (number % 2), number % 3 == 0)
            if number % 5 == 0:
                scale = torch.linspace(0.5, 2, weight.shape[1]).half()
                result[layer.name] = replace(result[layer.name], input_scale=scale)
    return result


@pytest.fixture(scope="module")
def rewritten(model, ir, weights, tmp_path_factory):
    out = tmp_path_factory.mktemp("rewritten") / "out"
    target = OpenVino(from_=str(ir))
    return out, exported(model.source, model, weights, out, target), target


def test_every_weight_is_read_back_bit_for_bit(rewritten, weights):
    out, report, target = rewritten
    read = dict(target.read_back(out))
    assert read.keys() == report.stored_as.keys() == weights.keys()
    assert all(torch.equal(read[name], weights[name].dequantize()) for name in weights)
    assert "only the weights of layers changed" in report.notes[-1]


def test_the_files_weigh_what_was_planned(rewritten, model, weights):
    out, report, target = rewritten
    planned = target.planned_bytes(source_of(model.source, weights))
    on_disk = sum(path.stat().st_size for path in out.iterdir())
    assert planned == on_disk == sum(report.files.values())


def test_openvino_computes_each_layer_with_its_new_weight(rewritten, model, weights):
    out, *_ = rewritten
    for component, stem in GRAPHS.items():
        compiled = ov.Core().compile_model(out / f"{stem}.xml", "CPU", {
            "INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
        })  # fmt: skip
        x = torch.randn(3, compiled.input(0).partial_shape[1].get_length())
        outputs = compiled([x.numpy()])
        for layer in model.components[component].layers:
            weight = weights[layer.name].dequantize() if layer.name in weights else None
            linear = layer.module
            expected = torch.nn.functional.linear(
                x[:, : linear.in_features], linear.weight if weight is None else weight,
                linear.bias,
            )  # fmt: skip
            got = torch.from_numpy(outputs[compiled.output(layer.name)])
            torch.testing.assert_close(got, expected.detach(), rtol=1e-3, atol=1e-3)


def test_other_constants_and_files_are_those_of_the_ir(rewritten, ir, weights, model):
    out, *_ = rewritten
    assert (out / "config.json").read_text() == '{"written_by": "optimum-intel"}'
    assert (out / "openvino_tokenizer.xml").read_text() == "<net/>"
    assert (out / "tokenizer.json").exists()

    def constants(folder):
        nodes = ov.Core().read_model(folder / f"{GRAPHS['llm']}.xml").get_ops()
        arrays = [np.array(n.data) for n in nodes if n.get_type_name() == "Constant"]
        return {array.tobytes() for array in arrays if array.size > 100}

    plain = [x for x in model.components["llm"].layers if x.name not in weights]
    expected = {x.module.weight.detach().half().numpy().tobytes() for x in plain}
    assert len(expected) > 1
    assert expected <= constants(ir) & constants(out)


def test_the_unquantized_model_is_the_ir_with_the_checkpoint_s_processor(model, ir, tmp_path):
    OpenVino(from_=str(ir)).export_unquantized(source_of(model.source, {}), tmp_path)
    assert {path.name for path in ir.iterdir()} < {path.name for path in tmp_path.iterdir()}
    assert (tmp_path / "tokenizer.json").exists()
    assert (tmp_path / "openvino_language_model.bin").samefile(ir / "openvino_language_model.bin")


@pytest.mark.parametrize("quantized", ["model.text_model", "model.vision_model.encoder"])
def test_weights_of_another_model_are_refused_also_if_they_are_copied(ir, tmp_path, quantized):
    other = tmp_path / "other"
    save_smolvlm(other)
    module = loaded(other).module
    with torch.no_grad():
        module.model.text_model.layers[1].mlp.up_proj.weight[3, 3] += 1
    module.half().save_pretrained(other)
    layer = next(
        layer for c in loaded(other).components.values() for layer in c.layers
        if layer.name.startswith(f"{quantized}.layers.0.")
    )  # fmt: skip
    weights = {layer.name: rounded(layer.module.weight.detach(), 4, 32, True)}
    with pytest.raises(
        InputError, match=r"no constant of the IR in .* has the values of .*up_pro"
    ):
        OpenVino(from_=str(ir)).planned_bytes(source_of(other, weights))


def test_a_block_that_the_ir_leaves_out_is_reported(model, weights, tmp_path):
    blocks = model.components["vit"].layers
    component = replace(model.components["vit"], layers=[x for x in blocks if x.block == 0])
    smaller = replace(model, components=model.components | {"vit": component})
    write_ir(smaller, tmp_path / "ir")
    target = OpenVino(from_=str(tmp_path / "ir"))
    report = exported(model.source, model, weights, tmp_path / "out", target)
    assert report.unread == {x.name for x in blocks if x.block == 1} & weights.keys()
    assert f"{len(report.unread)} layers are not in the files" in report.notes[0]


def test_an_ir_with_quantized_weights_is_refused_with_the_command_for_another(
    model, rewritten, weights
):
    out, *_ = rewritten
    with pytest.raises(InputError, match=r"is quantized \(.*optimum-cli .*--weight-format fp16"):
        OpenVino(from_=str(out)).planned_bytes(source_of(model.source, weights))


def test_equal_weights_without_a_telling_name_are_refused(tmp_path):
    folder = tmp_path / "twins"
    save_smolvlm(folder)
    twins = loaded(folder)
    layers = twins.components["llm"].layers
    with torch.no_grad():
        layers[1].module.weight.copy_(layers[2].module.weight)
    twins.module.half().save_pretrained(folder)
    twins.module.float()
    write_ir(twins, tmp_path / "ir")
    weights = {x.name: rounded(x.module.weight.detach(), 4, 32, True) for x in layers[:3]}
    with pytest.raises(InputError, match="no name tells the constants of .* apart"):
        OpenVino(from_=str(tmp_path / "ir")).planned_bytes(source_of(folder, weights))


def test_a_folder_without_an_ir_and_a_family_that_needs_none_are_refused(
    model, ir, weights, tmp_path
):
    with pytest.raises(InputError, match=r"has no openvino_language_model.xml; .*optimum-cli"):
        OpenVino(from_=str(tmp_path)).planned_bytes(source_of(model.source, weights))
    with pytest.raises(InputError, match="mmq writes Llava.* itself; export without --from"):
        OpenVino(from_=str(ir)).planned_bytes(source_of(LLAVA, {}))


def test_an_ir_that_is_known_to_compute_otherwise_is_refused_in_exact_mode(
    model, ir, weights, tmp_path
):
    for path in ir.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text('{"transformers_version": "4.57.6"}')
    source = source_of(model.source, weights)
    with pytest.raises(InputError, match=r"transformers 4.57.6, which reads .* --precision fast"):
        OpenVino(from_=str(tmp_path)).planned_bytes(source)
    assert OpenVino(from_=str(tmp_path), precision="fast").planned_bytes(source)


def test_without_optimum_intel_outputs_are_not_compared_and_the_reason_names_it(monkeypatch):
    monkeypatch.delenv("MMQ_OPTIMUM_PYTHON", raising=False)
    assert not OpenVino().unavailable()
    reason = OpenVino(from_="ir").unavailable()
    assert "optimum-intel, which runs this IR, is not installed" in reason
    with pytest.raises(InputError, match=r"make \.venv-optimum/installed"):
        OpenVino(from_="ir").open("folder", "cpu")
