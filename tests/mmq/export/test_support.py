"""What targets support of a model, and with which quantizer options."""

import pytest
from mmq_plugins.quantizers.awq import Awq
from mmq_plugins.quantizers.rtn import Rtn
from mmq_plugins.quantizers.uniform import Uniform

from mmq.errors import InputError
from mmq.export.support import supported_widths
from mmq.export.targets import build_target
from mmq.models.loading import locate
from mmq.models.skeleton import skeleton

BITS = (2, 3, 4, 5, 6, 7, 8, 16)


@pytest.fixture(scope="module")
def llava():
    return skeleton(locate("embedded-llava"))


def supported(outline, target="gguf", quantizer=None, explicit=(), bits=BITS):
    quantizer = quantizer or Rtn()
    return supported_widths(target, build_target(target, {}), quantizer, explicit, outline, bits)


def test_each_width_gets_the_options_that_store_it_in_the_fewest_bytes(llava):
    support = supported(llava)
    assert support.quantizer.at(4) == Rtn(group_size=32, symmetric=True)  # Q4_0, 4.5 bits
    assert support.quantizer.at(3) == Rtn(group_size=0, symmetric=True)  # Q3_K, 3.4 bits
    assert support.quantizer.at(8) == Rtn(group_size=0, symmetric=True)  # Q8_0


def test_a_width_that_saves_nothing_is_dropped_with_its_reason(llava):
    support = supported(llava)
    assert support.widths == dict.fromkeys(("vit", "llm"), (2, 3, 4, 5, 6, 8, 16))
    assert support.report("gguf") == (
        "Not searched for the target gguf: vit=7 llm=7 (as many bytes as 8 bits)"
    )


def test_tables_have_the_widths_that_the_target_and_their_rule_allow():
    outline = skeleton(locate("embedded-llava"), ("embed", "head"))
    support = supported(outline)
    assert support.widths["embed"] == support.widths["head"] == (4, 6, 8, 16)
    assert supported(outline, "compressed-tensors").widths["embed"] == (16,)


def test_options_of_the_user_are_not_changed(llava):
    support = supported(llava, quantizer=Rtn(group_size=32), explicit={"group_size"})
    assert {support.quantizer.at(bits).group_size for bits in BITS[:-1]} == {32}
    assert support.dropped["llm", 3] == "as many bytes as 4 bits"
    assert support.widths["llm"] == (4, 5, 8, 16)


def test_input_scales_are_folded_where_the_format_has_none(llava):
    awq = Awq(group_size=32, symmetric=True)
    support = supported(llava, "gguf", awq, {"group_size", "symmetric"}, (4, 16))
    assert support.quantizer.at(4).foldable


def test_a_component_that_an_engine_loads_at_16_bits_stays_there():
    blip2 = skeleton(locate("embedded-blip2"))
    support = supported(blip2, "compressed-tensors:vllm", bits=(4, 8))
    assert support.widths["qformer"] == (16,)
    assert "at 16 bits only" in support.dropped["qformer", 4]
    assert [str(a) for a in support.allocations()] == [
        "vit=4 llm=4", "vit=8 llm=8", "qformer=16"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("target", "quantizer", "bits", "reason"),
    [
        ("gguf", Rtn(), (7, 16), "cannot use 7 for any component.*it can use: vit: 2,3,4,5,6,8"),
        ("gguf", Uniform(), BITS, "no real zero points.*--quantizer gptq; --quantizer rtn"),
        ("torch", Rtn(), BITS, "files of the same size at every width"),
        ("compressed-tensors:vllm-cpu", Rtn(), (3,), "it can use: vit: 4,8; llm: 4,8"),
    ],
)
def test_a_target_that_supports_nothing_of_it_is_refused(llava, target, quantizer, bits, reason):
    with pytest.raises(InputError, match=reason):
        supported(llava, target, quantizer, bits=bits)
