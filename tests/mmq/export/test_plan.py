"""Unsupported exports are refused with supported options, before anything is loaded."""

from dataclasses import replace

import pytest
from exporting import session_for
from mmq_plugins.targets.torch_checkpoint import TorchCheckpoint

from mmq.contracts.target import WeightSpec
from mmq.errors import InputError
from mmq.export.targets import build_target, split_options


class FourBits(TorchCheckpoint):
    """Stores symmetric 4-bit weights only, and no Q-Former."""

    def refusal(self, spec: WeightSpec, shape, component):
        if component == "qformer":
            return "it has no Q-Former"
        return "" if spec.bits == 4 and spec.symmetric else "it holds 4 bits, symmetric"


def test_a_width_is_refused_with_the_nearest_supported_one():
    with pytest.raises(InputError, match=r"store llm .*: 3 bits, one scale per row") as error:
        session_for("embedded-blip2", "vit=4,llm=3", FourBits(), symmetric=True)
    assert "it holds 4 bits, symmetric. Nearest that it can store: llm=4;" in str(error.value)


def test_an_option_is_suggested_where_it_alone_is_enough():
    with pytest.raises(InputError, match="Nearest that it can store: --symmetric true;"):
        session_for("embedded-blip2", "llm=4", FourBits())


def test_awq_s_input_scales_are_refused_whatever_its_options_with_those_that_fold():
    for options in ({}, {"symmetric": True, "group_size": 32}):
        with pytest.raises(InputError, match=r"input scales.*Nearest .*: --foldable true;"):
            session_for("embedded-blip2", "llm=4", "compressed-tensors", "awq", **options)


def test_act_order_is_refused_with_groups_that_it_leaves_in_place():
    options = {"group_size": 64, "static_groups": False}
    with pytest.raises(InputError, match="act-order.*can store: --static-groups true;"):
        session_for("embedded-llava", "llm=4", "gguf", "gptq", **options)


def test_a_part_that_cannot_be_held_at_all_is_to_stay_at_16_bits():
    with pytest.raises(InputError, match="Nearest that it can store: qformer=16$"):
        session_for("embedded-blip2", "qformer=4,llm=4", FourBits(), symmetric=True)


def test_another_quantizer_is_offered_where_no_option_helps():
    with pytest.raises(InputError, match=r"real zero points.*: --quantizer gptq; .*; vit=16$"):
        session_for("embedded-retrieval", "vit=4", "compressed-tensors", quantizer="uniform")


def test_for_a_table_only_options_that_apply_to_it_are_offered():
    with pytest.raises(InputError, match=r"cannot store embed .*8-bit codes with zero") as error:
        session_for("embedded-llava", "llm=4,embed=8", "gguf", group_size=32)
    nearest = "--symmetric true; embed=6; embed=4; embed=6 with --symmetric true"
    assert str(error.value).endswith(f"Nearest that it can store: {nearest}")
    session = session_for("embedded-llava", "llm=4,embed=8", "gguf", group_size=32, symmetric=True)
    assert session.plan.specs["model.language_model.embed_tokens"].symmetric
    with pytest.raises(InputError, match="embed at 16 bits for transformers.* store: embed=16$"):
        session_for("embedded-llava", "llm=4,embed=8", "compressed-tensors", group_size=32)


def test_the_unquantized_model_is_no_export():
    with pytest.raises(InputError, match="nothing to export"):
        session_for("embedded-blip2", "vit=16", "torch")


def test_an_unknown_target_and_an_unknown_engine_are_named():
    with pytest.raises(InputError, match="Unknown target 'torhc'. Did you mean 'torch'"):
        build_target("torhc", {})
    with pytest.raises(InputError, match="torch has one engine only"):
        build_target("torch:vllm", {})
    with pytest.raises(InputError, match="'vlm' is not one of"):
        build_target("compressed-tensors:vlm", {})


def test_the_targets_own_options_are_found_among_others():
    own, rest = split_options("torch", {"dtype": "float32", "group-size": "64"})
    assert own == {"dtype": "float32"}
    assert rest == {"group-size": "64"}


def test_the_same_export_has_one_key_and_another_allocation_another():
    keys = {
        bits: session_for("embedded-retrieval", bits, "torch").plan.key
        for bits in ("vit=4,qformer=4", "qformer=4,vit=4", "vit=4")
    }
    assert keys["vit=4,qformer=4"] == keys["qformer=4,vit=4"] != keys["vit=4"]


def test_the_version_of_the_quantizer_decides_what_a_killed_export_resumes_and_not_its_source():
    plan = session_for("embedded-retrieval", "vit=4", "torch").plan

    def key(**changes):
        return replace(plan, eval_spec=replace(plan.eval_spec, **changes)).key

    assert key(quantizer_origin="mmq 0.2 0123abcd") == plan.key
    assert key(quantizer_version=2) != plan.key
    assert key(versions=dict(plan.eval_spec.versions) | {"tensors": 9}) != plan.key
