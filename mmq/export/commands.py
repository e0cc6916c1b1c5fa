"""Commands for model cards, which work as printed."""

from pathlib import Path

from mmq.export.facts import read_facts

ASK = """python - PICTURE.png <<'EOF'
import sys, torch, transformers
from PIL import Image

folder = {folder!r}
config = transformers.AutoConfig.from_pretrained(folder)
model = getattr(transformers, config.architectures[0]).from_pretrained(
    folder, torch_dtype=torch.{dtype}
).eval()
if hasattr(model, "hf_quantizer"):  # before the first call: some models call parts of themselves
    model.hf_quantizer.compressor.decompress_model(model)
processor = transformers.AutoProcessor.from_pretrained(folder)
inputs = processor(
    images=Image.open(sys.argv[1]).convert("RGB"),
    text={prompt!r},
    return_tensors="pt",
).to(torch.{dtype})
{ask}
EOF"""
GENERATE = """tokens = model.generate(**inputs, max_new_tokens=30)
print(processor.batch_decode(tokens, skip_special_tokens=True)[0])"""
MATCH = """inputs.pop("token_type_ids", None)
print(model(**inputs, use_image_text_matching_head=True).logits_per_image.softmax(-1))"""


def transformers_command(folder: Path) -> str:
    """A command that asks the model about a picture in transformers, without mmq."""
    facts = read_facts(folder)
    prompt = str(facts.get("prompt") or "")
    return ASK.format(
        folder=str(folder),
        dtype=str(facts.get("dtype", "float32")),
        prompt=prompt or "a picture of a cat",
        ask=GENERATE if prompt else MATCH,
    )
