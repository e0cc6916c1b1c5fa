"""What can be quantized of an architecture, as docs/coverage.md lists it."""

import json
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from mmq.cli.models import markdown_row, summary
from mmq.models.checkpoint_config import check_facts
from mmq.models.components import find_components
from mmq.models.coverage import Coverage, architectures, check
from mmq.models.coverage_configs import example
from mmq.models.skeleton import family_of

PAGE = Path(__file__).parents[3] / "docs" / "coverage.md"
TYPES = ("qwen3_vl_moe", "llama4", "aria", "florence2", "diffusion_gemma", "fuyu", "udop",
         "gemma4", "nemotron_h_omni")  # fmt: skip


@pytest.mark.parametrize("model_type", TYPES)
def test_the_page_matches_the_installed_transformers(model_type):
    if f"transformers {version('transformers')}," not in PAGE.read_text():
        pytest.skip("the page is about another version of transformers")
    pairs = [pair for pair in architectures() if pair[0].model_type == model_type]
    assert pairs
    for config, name in pairs:
        row = check(config, name)
        assert markdown_row(row) in PAGE.read_text().splitlines()
        assert 0.95 <= row.blocks <= 1
        assert row.model <= 1


def test_a_decoder_with_its_encoders_weights_is_calibrated_together_with_it():
    pairs = [pair for pair in architectures() if pair[0].model_type == "diffusion_gemma"]
    if not pairs:
        pytest.skip("this version of transformers has no DiffusionGemma")
    config = example(pairs[0][0])
    config.architectures = [pairs[0][1]]
    family = family_of(config)
    with torch.device("meta"):
        root = family.skeleton(config)
    llm = find_components(root, family)["llm"]
    assert llm.twins == (("model.encoder.language_model.layers", "model.decoder.layers"),)
    owner, twin = (root.get_submodule(path) for path in llm.twins[0])
    first = next(layer.matrix for layer in llm.layers if layer.name.endswith("0.self_attn.q_proj"))
    assert first.module is owner[0].self_attn.q_proj
    assert first.twins == ((twin[0].self_attn.q_proj, "weight"),)


def test_no_example_configuration_is_refused_as_absurd():
    for config, _ in architectures():
        if config.model_type == "vision-encoder-decoder":  # transformers 4 has no example
            continue
        facts = json.loads(json.dumps(example(config).to_dict(), default=str))
        check_facts(Path("config.json"), facts)


def test_the_page_lists_every_architecture_and_each_uncovered_one_has_a_reason():
    lines = PAGE.read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ") and "architecture" not in line]
    shares = [line.split("|")[3].strip() for line in rows]
    covered = [share for share in shares if share and float(share.rstrip("%")) >= 95]
    assert len(covered) >= 90
    assert all(
        line.split("|")[5].strip() for line, share in zip(rows, shares, strict=True) if not share
    )


def test_an_architecture_with_neither_enough_nor_a_reason_is_named():
    rows = [Coverage("Good", "good", blocks=1.0), Coverage("Bad", "bad", blocks=0.5)]
    assert summary(rows).endswith("Without a reason: Bad.")
    assert "Without" not in summary(rows[:1])
