"""Reasoning is not part of an answer."""

import pytest

from mmq.models.reasoning import without_reasoning


@pytest.mark.parametrize(
    ("text", "prompt", "answer", "ended"),
    [
        ("<think>two and two</think>\nfour", "", "\nfour", True),
        ("two and two</think>four", "assistant:<think>\n", "four", True),
        ("two and", "assistant:<think>\n", "", False),
        ("[THINK]two[/THINK]four", "", "four", True),
        ("<think>two and", "", "", False),
        ("four", "assistant: <think></think>", "four", True),
        ("<|channel>thought\ntwo and two<channel|>four", "", "four", True),
        ("<|channel>thought\ntwo and", "", "", False),
        ("<unused94>thought\ntwo and two<unused95>four", "", "four", True),
        (
            "<|START_THINKING|>two<|END_THINKING|><|START_RESPONSE|>four<|END_RESPONSE|>",
            "", "four", True,
        ),
        ("<seed:think>two</seed:think>four", "", "four", True),
        ("so</think><answer>It is <|begin_of_box|>four<|end_of_box|></answer>", "", "four", True),
        ("It is <|begin_of_box|>four<|end_of_box|>.", "", "four", True),
    ],
)  # fmt: skip
def test_an_answer_is_what_follows_the_reasoning(text, prompt, answer, ended):
    assert without_reasoning(text, prompt) == (answer, ended)
