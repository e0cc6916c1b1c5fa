from mmq.allocation.rules import rules_of_thumb


def named(widths, recipes=None):
    return dict(rules_of_thumb(widths, recipes or {}))


def test_uniform_widths_lead_and_the_language_model_alone_is_next():
    widths = {"vit": [3, 4, 8, 16], "qformer": [3, 4, 8, 16], "llm": [3, 4, 8, 16]}
    rules = rules_of_thumb(widths, {})
    assert [name for name, _ in rules] == [
        *(f"uniform {bits}" for bits in (16, 8, 4, 3)),
        "vision at 16, language model at 4",
        "vision at 16, language model at 3",
    ]
    assert dict(rules)["vision at 16, language model at 3"] == {"vit": 16, "qformer": 16, "llm": 3}


def test_a_model_without_a_language_model_has_uniform_rules_alone():
    rules = named({"vit": [4, 16], "qformer": [4, 16]})
    assert list(rules) == ["uniform 16", "uniform 4"]


def test_embeddings_and_head_are_protected_where_they_are_parts():
    own = [4, 8, 16]
    rules = named({"vit": own, "embed": own, "llm": own, "head": own})
    assert rules["embed and head at 8, the rest at 4"] == {
        "vit": 4, "embed": 8, "llm": 4, "head": 8,
    }  # fmt: skip
    assert rules["vision at 16, language model at 4"]["head"] == 16


def test_first_and_last_blocks_are_protected_where_groups_are_parts():
    own = [4, 8]
    parts = {f"llm.{group}": own for group in ("front", "middle", "end")}
    rules = named(parts)
    name = "first and last third of the blocks at 8, the rest at 4"
    assert rules[name] == {"llm.front": 8, "llm.middle": 4, "llm.end": 8}


def test_a_search_above_four_bits_gives_the_language_model_its_lowest_width():
    assert "vision at 16, language model at 6" in named({"vit": [6, 16], "llm": [6, 16]})


def test_a_rule_that_a_space_cannot_express_says_so():
    rules = named({"vit": [8], "qformer": [2, 4], "llm": [2, 4]})
    assert rules["uniform 8, where supported"] == {"vit": 8, "qformer": 4, "llm": 4}


def test_where_no_part_has_wide_widths_the_widest_protects():
    rules = named({part: [2, 3, 4] for part in ("vit", "llm.front", "llm.middle", "llm.end")})
    wide, low = "vision at 4, language model at 3", "first and last third of the blocks at 4, "
    assert rules[wide] == {"vit": 4, "llm.front": 3, "llm.middle": 3, "llm.end": 3}
    assert rules[f"{low}the rest at 2"] == {
        "vit": 2, "llm.front": 4, "llm.middle": 2, "llm.end": 4,
    }  # fmt: skip


def test_a_recipe_of_a_target_is_a_rule_with_its_name():
    own = [4, 8, 16]
    rules = named({"vit": own, "llm": own}, {"the engine's own": (4, 8)})
    assert rules["the engine's own"] == {"vit": 8, "llm": 4}
