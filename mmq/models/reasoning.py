"""The reasoning that some models write in front of their answers, and marks around these."""

TAGS = (  # of most models; Mistral's, Kimi's, Gemma 4's, MedGemma's, Cohere's, Seed's
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|channel>", "<channel|>"),
    ("<unused94>", "<unused95>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
)
CUT = (
    "The token limit cut the model's reasoning: such samples have no answer. Raise "
    "--max-new-tokens, or turn reasoning off (e.g. --template enable_thinking=false)"
)
MARKS = (  # around a final answer: GLM-4.1V-Thinking's, those of GLM-4.5V and later, Cohere's
    ("<answer>", "</answer>"),
    ("<|begin_of_box|>", "<|end_of_box|>"),
    ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
)


def without_reasoning(text: str, prompt: str = "") -> tuple[str, bool]:
    """A text without its reasoning, and whether the reasoning ended.

    Reasoning that the token limit cut leaves no answer. Of a text with a marked answer, that is
    the result. prompt: templates may open the reasoning.

    >>> without_reasoning("<think>two and two</think>four")
    ('four', True)
    >>> without_reasoning("<think>two and")
    ('', False)
    >>> without_reasoning("<think>so</think>It is <|begin_of_box|>red<|end_of_box|>.")
    ('red', True)
    """
    for opening, closing in TAGS:
        if closing in text:
            return _marked(text.rpartition(closing)[2]), True
        if opening in text:
            return text.partition(opening)[0], False
        if prompt.rstrip().endswith(opening):
            return "", False
    return _marked(text), True


def _marked(text: str) -> str:
    """The last marked answer in a text; the text itself if it marks none."""
    for opening, closing in MARKS:
        if opening in text:
            text = text.rpartition(opening)[2].partition(closing)[0]
    return text
