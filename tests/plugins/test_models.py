"""Model families: the embedded BLIP-2, a tiny LLaVA of random weights, real configurations."""

import json
import re
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from asking import ask, picture, requests_for, scores, silent
from mmq_plugins.embedded import scenes
from mmq_plugins.embedded.build import build_tokenizer
from mmq_plugins.evaluators.retrieval import Retrieval
from mmq_plugins.evaluators.vqa import Vqa
from mmq_plugins.models.blip2 import Blip2
from mmq_plugins.models.llava import Llava
from safetensors.torch import load_file
from tiny_models import VISION
from tiny_vlms import build
from torch import nn

from mmq.contracts import AnswerFormat, GenerationConfig, Request
from mmq.data.source import find_source
from mmq.errors import InputError
from mmq.models.components import find_components
from mmq.models.loaded import LoadedModel
from mmq.models.loading import load_model, read_config
from mmq.models.skeleton import skeleton
from mmq.models.stages import StageCache
from mmq.testing import FamilyContract

PICTURES = [scenes.render(scenes.make_scene(k, "test")) for k in range(4)]
QUESTIONS = [
    "how many objects are there?",
    "what color is the background?",
    "is there a red star?",
    "where is the large circle?",
]
CONFIGS = Path(__file__).parents[1] / "data" / "configs"


@pytest.fixture(scope="module")
def blip2():
    return load_model("embedded-blip2")


def test_answers_do_not_depend_on_the_batch(blip2):
    together = ask(blip2, PICTURES, QUESTIONS)
    apart = [ask(blip2, [p], [q])[0] for p, q in zip(PICTURES, QUESTIONS, strict=True)]
    assert together == apart
    assert all(together)


def test_an_answer_contains_nothing_of_its_prompt(blip2):
    (answer,) = ask(blip2, PICTURES[:1], QUESTIONS[:1])
    assert answer == str(len(scenes.make_scene(0, "test").objects))


@pytest.mark.parametrize("beams", [1, 5])
def test_answers_are_those_of_transformers_own_generation(blip2, beams):
    samples = find_source("vqa", "scenes").samples()[:48]
    images = [sample.image.open() for sample in samples]
    questions = [sample.question for sample in samples]
    prompts = [blip2.render(r) for r in requests_for(blip2, images, questions)]
    inputs = blip2.processor(images=images, text=prompts, padding=True, return_tensors="pt")
    tokens = blip2.module.generate(
        **inputs, max_new_tokens=10, min_new_tokens=1, num_beams=beams, length_penalty=0.0,
        do_sample=False,
    )  # fmt: skip
    cut = tokens[:, inputs["input_ids"].shape[1] :]
    expected = [t.strip() for t in blip2.processor.batch_decode(cut, skip_special_tokens=True)]
    assert ask(blip2, images, questions, num_beams=beams) == expected


def test_captions_are_those_of_transformers_own_unconditional_generation(blip2):
    inputs = blip2.processor(images=PICTURES, return_tensors="pt")
    tokens = blip2.module.generate(**inputs, max_new_tokens=30, num_beams=5, do_sample=False)
    text = blip2.processor.batch_decode(tokens, skip_special_tokens=True)
    expected = [t.replace("<image>", "").strip() for t in text]
    assert ask(blip2, PICTURES, [""] * 4, AnswerFormat.CAPTION) == expected


@pytest.mark.parametrize("name", ["embedded-blip2", "embedded-llava", "embedded-retrieval"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_checkpoints_load_and_answer_in_half_precision(name, dtype):
    model = load_model(name, dtype)
    dtypes = {name: p.dtype for name, p in model.module.named_parameters()}
    precise = {name for name, each in dtypes.items() if each == torch.float32}
    # their authors keep a Q-Former in float32 where everything else is float16
    keeps = dtype == "float16" and name != "embedded-llava"
    expected = (
        {x for x in dtypes if x.startswith(("qformer.", "query_tokens"))} if keeps else set()
    )
    assert precise == expected
    assert set(dtypes.values()) - {torch.float32} == {getattr(torch, dtype)}
    assert model.fingerprint != load_model(name).fingerprint
    evaluator = Retrieval() if model.family.matches else Vqa()
    samples = find_source(evaluator.task, "scenes").samples()[:10]
    assert scores(evaluator, model, samples).score.value >= 60


def test_pickled_weights_are_loaded_only_where_that_is_allowed(blip2, tmp_path):
    bundled = Path(_bundled())
    for file in bundled.iterdir():
        if file.suffix == ".json":
            shutil.copy(file, tmp_path)
    tensors = load_file(bundled / "model.safetensors")
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="--allow-pickle"):
        load_model(str(tmp_path))
    loaded = load_model(str(tmp_path), allow_pickle=True)
    assert all(
        torch.equal(a, b)
        for a, b in zip(loaded.module.parameters(), blip2.module.parameters(), strict=True)
    )


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    for file in Path(_bundled()).iterdir():
        if file.suffix == ".json":
            shutil.copy(file, tmp_path)
    torch.save({"weights": Harmful()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(str(tmp_path), allow_pickle=True)


class Harmful:
    def __reduce__(self):
        raise_error = "raise AssertionError('code of a checkpoint was run')"
        return exec, (raise_error,)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_of_a_checkpoint_is_not_run_even_if_the_terminal_says_yes(
    file, tmp_path, monkeypatch
):
    folder = tmp_path / "model"
    shutil.copytree(_bundled(), folder)
    settings = json.loads((folder / file).read_text())
    settings |= {"model_type": "strange", "tokenizer_class": "Strange"}
    settings["auto_map"] = {
        "AutoConfig": "strange.Strange",
        "AutoTokenizer": ["strange.Strange"] * 2,
    }
    (folder / file).write_text(json.dumps(settings))
    (folder / "strange.py").write_text("raise AssertionError('code of a checkpoint was run')")
    monkeypatch.setattr("builtins.input", lambda *prompt: "y")
    if file == "config.json":
        with pytest.raises(InputError, match="it needs code of its own, which mmq does not run"):
            load_model(str(folder))
    with suppress(InputError):  # refused, or loaded by a class of transformers
        load_model(str(folder))


def test_no_source_file_trusts_the_code_of_a_checkpoint():
    root = Path(__file__).parents[2]
    for room in ("mmq", "plugins", "search"):
        for file in (root / room).rglob("*.py"):
            assert not re.search(r"trust_remote_code\s*=\s*(?!False)", file.read_text()), file


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    """A real LLaVA with a real processor, tiny and of random weights, from its folder."""
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=2,
        image_size=64, patch_size=16, projection_dim=64,
    )  # fmt: skip
    language = LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=256, pad_token_id=1, bos_token_id=0,
        eos_token_id=2,
    )  # fmt: skip
    config = LlavaConfig(vision_config=vision, text_config=language, image_token_index=4)
    folder = tmp_path_factory.mktemp("llava")
    LlavaForConditionalGeneration(config).save_pretrained(folder, safe_serialization=True)
    image_processor = CLIPImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}
    )
    LlavaProcessor(
        image_processor, build_tokenizer(scenes=200), patch_size=16,
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
        image_token="<image>",
    ).save_pretrained(folder)  # fmt: skip
    return load_model(str(folder))


@pytest.mark.parametrize("beams", [1, 3])
def test_llavas_answers_are_those_of_transformers_own_generation(llava, beams):
    prompts = [llava.render(r) for r in requests_for(llava, PICTURES, QUESTIONS)]
    inputs = llava.processor(images=PICTURES, text=prompts, padding=True, return_tensors="pt")
    inputs.pop("token_type_ids", None)
    tokens = llava.module.generate(**inputs, max_new_tokens=10, num_beams=beams, do_sample=False)
    cut = tokens[:, inputs["input_ids"].shape[1] :]
    expected = [t.strip() for t in llava.processor.batch_decode(cut, skip_special_tokens=True)]
    assert ask(llava, PICTURES, QUESTIONS, num_beams=beams) == expected


def test_llavas_answers_about_two_pictures_are_those_of_transformers_own_generation(llava):
    requests = [
        Request((picture(PICTURES[k]), picture(PICTURES[k + 1])), question, str(k))
        for k, question in enumerate(QUESTIONS[:3])
    ]
    prompts = [llava.render(request) for request in requests]
    assert prompts[0].count("<image>") == 2
    pictures = [image for k in range(3) for image in PICTURES[k : k + 2]]
    inputs = llava.processor(images=pictures, text=prompts, padding=True, return_tensors="pt")
    inputs.pop("token_type_ids", None)
    tokens = llava.module.generate(**inputs, max_new_tokens=6, do_sample=False)
    cut = tokens[:, inputs["input_ids"].shape[1] :]
    expected = [t.strip() for t in llava.processor.batch_decode(cut, skip_special_tokens=True)]
    config = GenerationConfig(max_new_tokens=6)
    assert llava.generate(requests, config, silent) == expected
    alone = [llava.generate([request], config, silent)[0] for request in requests]
    one = requests_for(llava, PICTURES[:1], QUESTIONS[:1])
    mixed = llava.generate([requests[0], *one, *requests[1:]], config, silent)
    assert [mixed[0], *mixed[2:]] == alone == expected


def test_a_family_of_one_picture_refuses_two(blip2):
    request = Request((picture(PICTURES[0]), picture(PICTURES[1])), "", "7")
    with pytest.raises(InputError, match="sample '7' has 2 pictures; Blip2 models take one"):
        blip2.generate([request], GenerationConfig(4), silent)


def test_llava_is_scored_through_the_same_path(llava):
    assert isinstance(llava.family, Llava)
    assert {n: len(c.layers) for n, c in llava.components.items()} == {"vit": 18, "llm": 14}
    samples = find_source("vqa", "scenes").samples()[:5]
    evaluation = scores(Vqa(batch_size=2), llava, samples)
    assert evaluation.score.n == 5
    assert not any("USER" in p.text for p in evaluation.predictions)


def test_a_tower_configured_without_blocks_stays_at_16_bits(monkeypatch, tmp_path):
    monkeypatch.setitem(VISION, "num_hidden_layers", 0)
    module, processor = build("blip2_opt")
    components = find_components(module, Blip2())
    assert list(components) == ["qformer", "llm"]
    model = LoadedModel(module, processor, Blip2(), "", "blind", "cpu", components)
    without_cache = ask(model, PICTURES, QUESTIONS)
    model.stage_cache = StageCache(tmp_path, 2**20)
    assert ask(model, PICTURES, QUESTIONS) == without_cache
    assert list(tmp_path.glob("connector-*"))


def test_a_model_without_any_blocks_is_refused():
    with torch.device("meta"):
        module = Blip2().skeleton(read_config(str(CONFIGS / "blip2-opt-2.7b.json")))
    module.vision_model.encoder.layers = module.qformer.encoder.layer = nn.ModuleList()
    module.language_model.model.decoder.layers = nn.ModuleList()
    with pytest.raises(InputError, match="its configuration has no transformer blocks"):
        find_components(module, Blip2())


def test_a_misplaced_component_lists_the_children():
    config = read_config(str(CONFIGS / "llava-1.5-7b.json"))
    with torch.device("meta"):
        module = Llava().skeleton(config)
    with pytest.raises(InputError, match=r"none of vision_model\.encoder\.layers exists .* model"):
        find_components(module, Blip2())


def test_a_skeleton_and_the_loaded_model_agree(blip2):
    outline = skeleton(blip2.source if Path(blip2.source).exists() else _bundled())
    for name, component in outline.components.items():
        real = blip2.components[name]
        assert [(x.name, x.shape) for x in component.layers] == [
            (x.name, x.shape) for x in real.layers
        ]


def _bundled():
    from mmq_plugins.embedded import blip2_checkpoint

    return str(blip2_checkpoint())


class TestBlip2(FamilyContract):
    def checkpoint(self):
        return "embedded-blip2"


class TestLlava(FamilyContract):
    def checkpoint(self):
        return "embedded-llava"


class TestBlip2Retrieval(FamilyContract):
    def checkpoint(self):
        return "embedded-retrieval"
