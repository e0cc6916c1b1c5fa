"""The general family: tiny models of several architectures are split, run and quantized."""

import json
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from asking import picture, scores, silent
from mmq_plugins.evaluators.vqa import Vqa
from mmq_plugins.models.generic import Generic
from mmq_plugins.models.generic_inputs import prompt_inputs
from tiny_models import PROCESSORS, ROPE, TINY, load_tiny, save_tiny, tiny_config
from torch import nn

from mmq.allocation.allocation import BitAllocation
from mmq.artifacts.store import Store
from mmq.config import EvalOptions
from mmq.contracts import GenerationConfig, Request
from mmq.data.source import find_source
from mmq.errors import InputError
from mmq.models.components import find_components
from mmq.models.loading import read_config
from mmq.models.skeleton import family_of, skeleton
from mmq.prepare import prepare
from mmq.record import TrialSpec
from mmq.testing import FamilyContract
from mmq.trial import run_trial


@pytest.mark.parametrize("model_type", TINY)
def test_every_linear_of_every_block_is_found(model_type, tmp_path):
    source = tiny_config(model_type, tmp_path)
    outline = skeleton(source)
    assert isinstance(outline.family, Generic)
    expected = TINY[model_type][1]
    result = {name: (len(c.layers), c.blocks) for name, c in outline.components.items()}
    assert result == {name: (each * n, n) for name, (each, n) in expected.items()}
    assert {layer.layer_type for c in outline.components.values() for layer in c.layers} == {
        "attn",
        "ff",
    }
    # the independent count: what is left of all linears stands in no numbered block
    with torch.device("meta"):
        root = outline.family.skeleton(read_config(source))
    taken = {layer.name for c in outline.components.values() for layer in c.layers}
    linears = {name for name, module in root.named_modules() if isinstance(module, nn.Linear)}
    assert taken < linears
    assert not [name for name in linears - taken if ".layers." in name or ".blocks." in name]


def test_qwen2_vl_2b_has_its_known_size(tmp_path):
    text = {
        "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
        "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151936,
        "tie_word_embeddings": True, "rope_scaling": ROPE | {"mrope_section": [16, 24, 24]},
    }  # fmt: skip
    path = tmp_path / "config.json"
    path.write_text(json.dumps({
        "model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"], **text,
        "vision_config": {"depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16},
    }))  # fmt: skip
    outline = skeleton(str(path))
    assert outline.parameters == 2_208_985_600
    # a block: attention qkv and out, two feed-forward; a kv head is 128 wide
    assert outline.components["vit"].weights == 32 * (4 + 8) * 1280**2
    assert outline.components["llm"].weights == 28 * 1536 * (2 * 1536 + 2 * 256 + 3 * 8960)


def test_a_dedicated_family_precedes_the_general_one():
    configs = Path(__file__).parents[1] / "data" / "configs"
    for path in configs.glob("*.json"):
        assert not isinstance(family_of(read_config(str(path))), Generic)


def test_an_architecture_that_reads_no_pictures_has_no_family(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    with pytest.raises(InputError, match=r"No model family for BertModel\. Supported .*Blip2"):
        family_of(read_config(str(path)))


def test_a_model_that_cannot_be_split_names_the_lists_of_blocks_that_it_has():
    with torch.device("meta"):
        root = nn.Module()
        root.audio_tower = nn.ModuleList([nn.ModuleDict({"attn": nn.Linear(2, 2)})])
        root.mlp = nn.ModuleList([nn.Linear(2, 2)])
    root.visual = nn.ModuleList([nn.ModuleDict({"attn": nn.Linear(2, 2)})])
    lists = r"of a language model\. Its lists of blocks: audio_tower, visual\."
    with pytest.raises(InputError, match=lists):
        find_components(root, Generic())


def attention(count=1):
    return nn.ModuleList([nn.ModuleDict({"attn": nn.Linear(2, 2)}) for _ in range(count)])


def components_of(**lists):
    with torch.device("meta"):
        root = nn.Module()
        for name, blocks in lists.items():
            setattr(root, name, blocks)
    components = find_components(root, Generic())
    return {name: component.paths for name, component in components.items()}


def test_a_model_whose_tower_has_no_blocks_still_has_a_language_model():
    components = components_of(vision_tower=nn.Conv2d(3, 2, 2), layers=attention())
    assert components == {"llm": ("layers",)}


def test_blocks_that_mix_tokens_by_a_short_convolution_alone_are_found():
    class ShortConv(nn.Module):
        def __init__(self):
            super().__init__()
            self.in_proj = nn.Linear(2, 6)

    blocks = nn.ModuleList([nn.ModuleDict({"conv": ShortConv()})])
    assert components_of(layers=blocks) == {"llm": ("layers",)}


def test_a_list_of_projectors_is_the_connector():
    assert components_of(layerwise_projectors=attention(2), layers=attention()) == {
        "connector": ("layerwise_projectors",),
        "llm": ("layers",),
    }


def test_the_encoder_beside_a_decoder_is_the_tower_if_there_is_no_other():
    assert components_of(encoder=attention(), decoder=attention()) == {
        "vit": ("encoder",),
        "llm": ("decoder",),
    }
    assert components_of(visual=attention(), encoder=attention(), decoder=attention()) == {
        "vit": ("visual",),
        "llm": ("decoder", "encoder"),
    }


def test_a_list_of_lists_of_blocks_is_several_lists():
    stages = nn.ModuleList([attention(1), attention(2)])
    assert components_of(vision=stages, layers=attention())["vit"] == ("vision.0", "vision.1")


def test_blocks_that_share_their_weights_count_once():
    layers = attention(2)
    twins = attention(2)
    for twin, layer in zip(twins, layers, strict=True):
        twin["attn"].weight = layer["attn"].weight
    assert components_of(layers=layers, decoder=twins) == {"llm": ("decoder",)}


def test_two_towers_are_one_component():
    with torch.device("meta"):

        def blocks(count):
            block = {"attn": nn.Linear(2, 2), "mlp": nn.Linear(2, 2)}
            return nn.ModuleList(nn.ModuleDict(deepcopy(block)) for _ in range(count))

        root = nn.Module()
        root.vision_near, root.vision_far, root.layers = blocks(1), blocks(2), blocks(1)
    components = find_components(root, Generic())
    assert {name: (c.blocks, len(c.layers)) for name, c in components.items()} == {
        "vit": (3, 6),
        "llm": (1, 2),
    }
    assert [layer.block for layer in components["vit"].layers] == [0, 0, 1, 1, 2, 2]


@pytest.fixture(scope="module", params=PROCESSORS)
def model(request, tmp_path_factory):
    """A saved tiny model of random weights with a real processor, loaded from its folder."""
    return load_tiny(request.param, tmp_path_factory.mktemp(request.param))


def test_it_is_prompted_through_its_own_processor(model):
    assert isinstance(model.family, Generic)
    samples = find_source("vqa", "scenes").samples()[:4]
    evaluation = scores(Vqa(batch_size=4, min_new_tokens=3, max_new_tokens=5), model, samples)
    assert evaluation.score.n == 4
    assert not any("Answer the" in p.text for p in evaluation.predictions)


def test_two_pictures_are_shown_in_their_order(model):
    first, second = (picture(s.image.open()) for s in find_source("gqa", "scenes").samples()[:8:7])
    request = Request((first, second), "compare", "1")
    (output,) = model.generate([request], GenerationConfig(max_new_tokens=6), silent)
    assert "compare" not in output

    def pixels(*images):
        text = model.render(Request(images, "compare", "1"))
        opened = [[image.open() for image in images]]
        inputs = prompt_inputs(model.module, model.processor, opened, [text])
        return inputs["pixel_values"].reshape(-1, *inputs["pixel_values"].shape[-3:])

    together, alone = pixels(first, second), torch.cat([pixels(first), pixels(second)])
    assert torch.equal(together, alone)
    assert not torch.equal(together, pixels(second, first))


def test_it_is_quantized_and_restored(model, tmp_path):
    before = {name: weight.clone() for name, weight in model.module.state_dict().items()}
    options = EvalOptions(model=model.source, limit="4")
    allocation = BitAllocation.parse("vit=4,llm=4")
    prepared = prepare(options, {"group-size": "16"}, lambda parts: [allocation])
    with prepared.task as task:
        spec = TrialSpec(prepared.eval_spec, allocation)
        artifacts = prepared.artifacts(Store(tmp_path), quiet=True)
        result = run_trial(spec, model, artifacts, task, quiet=True)
    assert {layer.bits for layer in result.details.layers} == {4}
    assert all(0 < layer.relative_error < 0.3 for layer in result.details.layers)
    assert result.record.score.n == 4
    assert all(torch.equal(before[k], v) for k, v in model.module.state_dict().items())


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    return save_tiny("idefics3", tmp_path_factory.mktemp("contract"))


class TestGeneric(FamilyContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tiny_folder):
        self.folder = str(tiny_folder)

    def checkpoint(self):
        return self.folder
