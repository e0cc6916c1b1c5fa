"""The general family: tiny models of several architectures, split, asked and quantized."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mmq_plugins.datasets.scenes import Scenes
from mmq_plugins.embedded.build import build_tokenizer
from mmq_plugins.evaluators.vqa import Vqa
from mmq_plugins.models.generic import Generic
from torch import nn

from mmq.allocation import BitAllocation
from mmq.errors import InputError
from mmq.images import open_image
from mmq.model import family_of, find_components, load_model, read_config, skeleton
from mmq.prepare import QuestionOptions, prepare
from mmq.store import Store
from mmq.trial import TrialSpec, run_trial

TEXT = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "max_position_embeddings": 512, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2,
}  # fmt: skip
VISION = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
ROPE = {"type": "mrope", "mrope_section": [2, 3, 3]}
PERCEIVER = {
    "hidden_size": 64, "resampler_n_latents": 4, "resampler_depth": 2, "resampler_n_heads": 4,
    "resampler_head_dim": 16, "num_key_value_heads": 2,
}  # fmt: skip
# configuration; linears a block and blocks of every component, counted by hand
TINY = {
    "qwen2_vl": (
        {
            "architectures": ["Qwen2VLForConditionalGeneration"],
            "text_config": {**TEXT, "rope_scaling": ROPE},
            "vision_config": {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2},
        },
        {"vit": (4, 2), "llm": (7, 3)},
    ),
    "smolvlm": (
        {
            "architectures": ["SmolVLMForConditionalGeneration"],
            "text_config": {**TEXT, "model_type": "llama"},
            "vision_config": VISION,
            "pad_token_id": 1,
            "scale_factor": 2,
        },
        {"vit": (6, 2), "llm": (7, 3)},
    ),
    "idefics3": (
        {
            "architectures": ["Idefics3ForConditionalGeneration"],
            "text_config": {**TEXT, "model_type": "llama"},
            "vision_config": VISION,
            "pad_token_id": 1,
            "scale_factor": 2,
        },
        {"vit": (6, 2), "llm": (7, 3)},
    ),
    "paligemma": (
        {
            "architectures": ["PaliGemmaForConditionalGeneration"],
            "text_config": {**TEXT, "model_type": "gemma"},
            "vision_config": {**VISION, "model_type": "siglip_vision_model"},
            "projection_dim": 64,
            "image_token_index": 4,
        },
        {"vit": (6, 2), "llm": (7, 3)},
    ),
    "idefics2": (
        {
            "architectures": ["Idefics2ForConditionalGeneration"],
            "text_config": {**TEXT, "model_type": "mistral"},
            "vision_config": VISION,
            "perceiver_config": PERCEIVER,
        },
        {"vit": (6, 2), "connector": (7, 2), "llm": (7, 3)},
    ),
}


def tiny(model_type, folder):
    path = folder / f"{model_type}.json"
    path.write_text(json.dumps({"model_type": model_type, **TINY[model_type][0]}))
    return str(path)


@pytest.mark.parametrize("model_type", TINY)
def test_every_linear_of_every_block_is_found(model_type, tmp_path):
    source = tiny(model_type, tmp_path)
    seen = skeleton(source)
    assert isinstance(seen.family, Generic)
    expected = TINY[model_type][1]
    found = {name: (len(c.layers), c.blocks) for name, c in seen.components.items()}
    assert found == {name: (each * n, n) for name, (each, n) in expected.items()}
    assert {layer.layer_type for c in seen.components.values() for layer in c.layers} == {
        "attn",
        "ff",
    }
    # the independent count: what is left of all linears stands in no numbered block
    with torch.device("meta"):
        root = seen.family.skeleton(read_config(source))
    taken = {layer.name for c in seen.components.values() for layer in c.layers}
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
    seen = skeleton(str(path))
    assert seen.parameters == 2_208_985_600
    # a block: attention qkv and out, two feed-forward; a kv head is 128 wide
    assert seen.components["vit"].weights == 32 * (4 + 8) * 1280**2
    assert seen.components["llm"].weights == 28 * 1536 * (2 * 1536 + 2 * 256 + 3 * 8960)


def test_a_family_of_its_own_is_asked_before_the_general_one():
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
    with pytest.raises(InputError, match=r"of a vision tower .* that it has: audio_tower\."):
        find_components(root, Generic())
    root.visual = nn.ModuleList([nn.ModuleDict({"attn": nn.Linear(2, 2)})])
    with pytest.raises(InputError, match="of a language model"):
        find_components(root, Generic())


def test_two_towers_are_one_component():
    with torch.device("meta"):
        block = nn.ModuleDict({"attn": nn.Linear(2, 2), "mlp": nn.Linear(2, 2)})
        root = nn.Module()
        root.vision_near = nn.ModuleList([block])
        root.vision_far = nn.ModuleList([block, block])
        root.layers = nn.ModuleList([block])
    found = find_components(root, Generic())
    assert {name: (c.blocks, len(c.layers)) for name, c in found.items()} == {
        "vit": (3, 6),
        "llm": (1, 2),
    }
    assert [layer.block for layer in found["vit"].layers] == [0, 0, 1, 1, 2, 2]


TEMPLATE = (
    "{% for message in messages %}User: {% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


def idefics3_processor():
    from transformers import Idefics3ImageProcessor, Idefics3Processor

    tokenizer = build_tokenizer(scenes=200)
    extra = ["<fake_token_around_image>", "<end_of_utterance>", "<global-img>"]
    tokenizer.add_special_tokens({"additional_special_tokens": extra})
    pictures = Idefics3ImageProcessor(
        do_image_splitting=False,
        size={"longest_edge": 32},
        max_image_size={"longest_edge": 32},
    )
    return Idefics3Processor(pictures, tokenizer, image_seq_len=4, chat_template=TEMPLATE)


def paligemma_processor():
    from transformers import GemmaTokenizerFast, PaliGemmaProcessor, SiglipImageProcessor

    plain = build_tokenizer(scenes=200)
    tokenizer = GemmaTokenizerFast(
        tokenizer_object=plain.backend_tokenizer, **plain.special_tokens_map
    )
    pictures = SiglipImageProcessor(size={"height": 32, "width": 32})
    pictures.image_seq_length = 16
    return PaliGemmaProcessor(pictures, tokenizer)


PROCESSORS = {"idefics3": idefics3_processor, "paligemma": paligemma_processor}


@pytest.fixture(scope="module", params=PROCESSORS)
def model(request, tmp_path_factory):
    """A saved tiny model of random weights with a real processor, loaded from its folder."""
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    processor = PROCESSORS[request.param]()
    processor.save_pretrained(folder)
    config = read_config(tiny(request.param, folder))
    config.image_token_id = config.image_token_index = 4
    root = Generic().skeleton(config)
    for parameter in root.parameters():  # as drawn, they would only repeat the last token
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.2)
    root.save_pretrained(folder, safe_serialization=True)
    return load_model(str(folder))


def test_it_is_asked_through_its_own_processor(model):
    assert isinstance(model.family, Generic)
    samples = Scenes().samples("vqa", Path())[:4]
    evaluation = Vqa(batch_size=4, min_new_tokens=3, max_new_tokens=5).evaluate(
        model, samples, lambda items, text: items
    )
    assert evaluation.score.n == 4
    assert not any("Answer the" in p.text for p in evaluation.predictions)


def test_an_answer_does_not_depend_on_its_batch(model):
    settings = replace(Generic.generation["vqa"], min_new_tokens=4)
    samples = Scenes().samples("vqa", Path())[:4]
    images = [open_image(sample.image) for sample in samples]
    texts = [settings.prompt.format(sample.question * (1 + k)) for k, sample in enumerate(samples)]
    together = model.family.generate(model, images, texts, settings)
    apart = [
        model.family.generate(model, [image], [text], settings)[0]
        for image, text in zip(images, texts, strict=True)
    ]
    assert together == apart
    assert any(together)


def test_it_is_quantized_and_restored(model, tmp_path):
    before = {name: weight.clone() for name, weight in model.module.state_dict().items()}
    chosen = QuestionOptions(model=model.source, limit="4")
    allocation = BitAllocation.parse("vit=4,llm=4")
    prepared = prepare(chosen, {"group-size": "16"}, lambda parts: [allocation])
    record = run_trial(
        TrialSpec(prepared.question, allocation), model,
        prepared.artifacts(Store(tmp_path), quiet=True), prepared.evaluator,
        prepared.samples, quiet=True,
    )  # fmt: skip
    assert {layer.bits for layer in record.report.layers} == {4}
    assert all(0 < layer.relative_error < 0.3 for layer in record.report.layers)
    assert record.evaluation.score.n == 4
    assert all(torch.equal(before[k], v) for k, v in model.module.state_dict().items())
