"""The reasoning that some models write in front of their answers."""

TAGS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("◁think▷", "◁/think▷"))


def without_reasoning(text: str, prompt: str = "") -> tuple[str, bool]:
    """A text without its reasoning, and whether the reasoning ended.

    Reasoning that the token limit cut leaves no answer. prompt: templates may open the reasoning.

    >>> without_reasoning("<think>two and two</think>four")
    ('four', True)
    >>> without_reasoning("<think>two and")
    ('', False)
    """
    for opening, closing in TAGS:
        if closing in text:
            return text.rpartition(closing)[2], True
        if opening in text:
            return text.partition(opening)[0], False
        if prompt.rstrip().endswith(opening):
            return "", False
    return text, True
