"""The (family, task) pairs of the paper's table, on the embedded models."""

PAIRS = [
    ("embedded-blip2", "captioning", "vit=4,qformer=8,llm=4"),
    ("embedded-blip2", "gqa", "vit=4,qformer=8,llm=4"),
    ("embedded-llava", "vqa", "vit=4,llm=3"),
    ("embedded-llava", "gqa", "vit=4,llm=3"),
    ("embedded-retrieval", "retrieval", "vit=4,qformer=8"),
]
AT_LEAST = {"captioning": 3}  # CIDEr; the others are shares in percent


def good(task: str, score: float) -> bool:
    """Whether a score on 12 samples is that of an intact model at 4 bits."""
    return score > AT_LEAST.get(task, 50)
