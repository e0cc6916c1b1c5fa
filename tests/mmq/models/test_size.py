"""The size facts of the paper's models, from their real configurations."""

import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from mmq.allocation.allocation import BitAllocation
from mmq.cli.main import cli
from mmq.errors import InputError
from mmq.models.loading import read_config
from mmq.models.size import planned_bpw
from mmq.models.skeleton import skeleton

CONFIGS = Path(__file__).parents[2] / "data" / "configs"
FACTS = {
    "blip2-opt-2.7b": (
        3_744_761_856,
        {"vit": 984_023_040, "qformer": 104_988_672, "llm": 2_516_582_400},
    ),
    "blip2-itm-vit-g-coco": (1_172_623_618, {"vit": 984_023_040, "qformer": 161_611_776}),
    "llava-1.5-7b": (7_063_427_072, {"vit": 301_989_888, "llm": 6_476_005_376}),
}


@pytest.mark.parametrize("name", FACTS)
def test_real_configurations_have_their_known_sizes(name):
    parameters, linears = FACTS[name]
    outline = skeleton(str(CONFIGS / f"{name}.json"))
    assert outline.parameters == parameters
    assert {key: component.weights for key, component in outline.components.items()} == linears


def test_bpw_is_the_mean_over_all_parameters():
    outline = skeleton(str(CONFIGS / "blip2-opt-2.7b.json"))
    allocation = BitAllocation.parse("vit=4,qformer=8,llm=3")
    parameters, linears = FACTS["blip2-opt-2.7b"]
    rest = parameters - sum(linears.values())
    bits = 4 * linears["vit"] + 8 * linears["qformer"] + 3 * linears["llm"] + 16 * rest
    assert planned_bpw(allocation, outline.components, parameters) == pytest.approx(
        bits / parameters
    )
    # a row of the paper's published table: vit=3 qformer=5 llm=6 is 5.555 bpw
    published = BitAllocation.parse("vit=3,qformer=5,llm=6")
    assert planned_bpw(published, outline.components, parameters) == pytest.approx(
        5.5553, abs=1e-4
    )


def test_finer_parts_add_up_to_their_components():
    outline = skeleton(str(CONFIGS / "blip2-opt-2.7b.json"))

    def saved(text):
        allocation = BitAllocation.parse(text).over(outline.components)
        return 16 - planned_bpw(allocation, outline.components, outline.parameters)

    for name in outline.components:
        whole = saved(f"{name}=4")
        groups = [saved(f"{name}.{group}=4") for group in ("front", "middle", "end")]
        assert sum(groups) == pytest.approx(whole)
        assert saved(f"{name}.attn=4") + saved(f"{name}.ff=4") == pytest.approx(whole)
        assert saved(f"{name}.end.ff=4") < saved(f"{name}.end=4") < whole
    assert saved("vit.front=4") == pytest.approx(saved("vit=4") / 3)  # 39 blocks


LINEARS = {  # blocks x linears a block, counted by hand from the published architectures
    "blip2-opt-2.7b": {
        "vit": 39 * 4,  # qkv, projection, fc1, fc2
        "qformer": 12 * 6
        + 6 * 4,  # self-attention 4, feed-forward 2; cross-attention 4, every 2nd
        "llm": 32 * 6,  # q, k, v, out, fc1, fc2
    },
    "blip2-itm-vit-g-coco": {"vit": 39 * 4, "qformer": 12 * 8 + 6 * 4},  # both feed-forwards
    "llava-1.5-7b": {"vit": 24 * 6, "llm": 32 * 7},  # q, k, v, o, gate, up, down
}


@pytest.mark.parametrize("name", FACTS)
def test_no_linear_is_left_out_in_silence(name):
    source = str(CONFIGS / f"{name}.json")
    outline = skeleton(source)
    assert {key: len(c.layers) for key, c in outline.components.items()} == LINEARS[name]
    config = read_config(source)
    with torch.device("meta"):
        module = outline.family.skeleton(config)
    everything = {id(m): n for n, m in module.named_modules() if isinstance(m, torch.nn.Linear)}
    result = {layer.name for c in outline.components.values() for layer in c.layers}
    inside = {n for n in everything.values() if re.search(r"(layers?|blocks)\.\d+\.", n)}
    assert result == inside
    outside = len(everything) - len(result)
    assert sum(kept.linears for kept in outline.unquantized) == outside
    assert all(kept.name for kept in outline.unquantized)
    # what is quantized and what is kept is the whole model
    weights = sum(c.weights for c in outline.components.values())
    assert weights + sum(kept.weights for kept in outline.unquantized) == FACTS[name][0]


def test_unquantized_and_unread_weights_are_reported():
    config = str(CONFIGS / "llava-1.5-7b.json")
    output = CliRunner().invoke(cli, ["size", "--config", config], catch_exceptions=False).output
    assert "unquantized" in output
    assert "lm_head" in output
    assert "multi_modal_projector" in output
    assert "whose output is not used: 1" in output


def test_both_feed_forwards_of_a_retrieval_qformer_are_found():
    layers = skeleton(str(CONFIGS / "blip2-itm-vit-g-coco.json")).components["qformer"].layers
    of_first = {layer.name.split(".0.", 1)[1] for layer in layers if layer.block == 0}
    assert {"intermediate.dense", "output.dense", "intermediate_query.dense",
            "output_query.dense"} <= of_first  # fmt: skip


def test_every_linear_of_every_block_is_found():
    outline = skeleton(str(CONFIGS / "blip2-opt-2.7b.json"))
    opt = [
        layer.name.rsplit(".", 1)[1]
        for layer in outline.components["llm"].layers
        if layer.block == 0
    ]
    assert sorted(opt) == ["fc1", "fc2", "k_proj", "out_proj", "q_proj", "v_proj"]
    types = {
        layer.name.split(".0.", 1)[1]: layer.layer_type
        for layer in outline.components["qformer"].layers
        if layer.block == 0
    }
    assert types == {
        "attention.attention.query": "attn",
        "attention.attention.key": "attn",
        "attention.attention.value": "attn",
        "attention.output.dense": "attn",
        "crossattention.attention.query": "attn",
        "crossattention.attention.key": "attn",
        "crossattention.attention.value": "attn",
        "crossattention.output.dense": "attn",
        "intermediate_query.dense": "ff",
        "output_query.dense": "ff",
    }


def test_size_command_prints_the_table():
    result = CliRunner().invoke(
        cli,
        [
            "size",
            "--config",
            str(CONFIGS / "blip2-opt-2.7b.json"),
            "--bits",
            "vit=4,qformer=8,llm=3",
        ],
        catch_exceptions=False,
    )
    assert "3,744,761,856" in result.output
    assert re.search(r"llm\s+32\s+192\s+2,516,582,400\s+67\.2%\s+3", result.output)
    assert "3.8861 bpw" in result.output


def sized(*arguments):
    result = CliRunner().invoke(cli, ["size", *arguments], catch_exceptions=False)
    actual = re.findall(r"(nominal|stored): +([\d.]+) bpw, ([\d.e-]+) GiB", result.output)
    return {name: (float(bpw), float(gib)) for name, bpw, gib in actual}


def test_size_counts_what_the_quantizer_stores():
    model = ["--config", str(CONFIGS / "blip2-opt-2.7b.json"), "--bits", "4"]
    plain = sized(*model)
    assert plain == sized(*model[:-1], "vit=4,qformer=4,llm=4")
    groups = sized(*model, "--quantizer", "rtn", "--group-size", "16")
    symmetric = sized(*model, "--group-size", "16", "--symmetric", "true")
    assert plain["nominal"] == groups["nominal"] == symmetric["nominal"]
    linears = sum(FACTS["blip2-opt-2.7b"][1].values()) / FACTS["blip2-opt-2.7b"][0]
    bpw = plain["nominal"][0]
    # per group of 16: a float16 scale, and a zero point of 4 bits
    assert groups["stored"][0] == pytest.approx(bpw + linears * 20 / 16, abs=1e-4)
    assert symmetric["stored"][0] == pytest.approx(bpw + linears * 16 / 16, abs=1e-4)
    gib = groups["stored"][0] * FACTS["blip2-opt-2.7b"][0] / 8 / 1024**3
    assert groups["stored"][1] == pytest.approx(gib, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bits", "9"], "bits: 9 is not one of"),
        (["--bits", "4,3"], "'4' is not component=bits"),
        (["--quantizer", "gtpq"], "Did you mean 'gptq'"),
        (["--bits", "4", "--group-size", "100"], "100 does not divide the 1408 inputs"),
        (["--group-sise", "16"], "Did you mean 'group-size'"),
    ],
)
def test_size_refuses_what_no_trial_could_do(arguments, message):
    config = str(CONFIGS / "blip2-opt-2.7b.json")
    with pytest.raises(InputError, match=message):
        CliRunner().invoke(cli, ["size", "--config", config, *arguments], catch_exceptions=False)
