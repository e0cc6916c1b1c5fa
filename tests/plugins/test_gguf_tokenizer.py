"""llama.cpp tokenizes texts as transformers does, and reads the family's prompt."""

import json
import shutil

import jinja2
import pytest
from gguf_models import LLAVA, exported, loaded, pairs, plain_tokenizer
from mmq_plugins.targets.gguf import Gguf
from mmq_plugins.targets.gguf_tokenizer import LLAMA3, QWEN2, chat_parts, chat_template

from mmq.errors import InputError

pytest.importorskip("gguf", reason="needs mmq[gguf]")
pytest.importorskip("xllamacpp", reason="needs mmq[gguf]")

TEXTS = [
    "what size is the cyan cross?",
    "USER: hello é 你  two",
    "\nAnswer the question using a single word or phrase. ASSISTANT:",
    "a  b\tc 1234 it's",
    " leading and trailing ",
    "USER: \nwhat is</s>next",
]


def sentence_pieces():
    """A tokenizer as Llama 2 has: pieces of sentences, bytes for all else."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    pieces = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    pieces.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    special = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=[*special, *(f"<0x{k:02X}>" for k in range(256))],
        show_progress=False,
    )
    pieces.train_from_iterator([text for _, text in pairs(60)], trainer)
    facts = json.loads(pieces.to_str())
    facts["added_tokens"] = [t for t in facts["added_tokens"] if t["content"] in special]
    pieces = Tokenizer.from_str(json.dumps(facts))
    pieces.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    pieces.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=pieces, bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        pad_token="<pad>",
    )  # fmt: skip


def words(pattern):
    """The embedded models' tokenizer, cutting texts by a pattern."""
    from tokenizers import Regex, pre_tokenizers

    tokenizer = plain_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


def digits():
    """The same with every digit as a separate piece, as in SmolLM."""
    from tokenizers import pre_tokenizers

    tokenizer = plain_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return tokenizer


TOKENIZERS = {
    "sentence pieces": sentence_pieces,
    "GPT-2's words": plain_tokenizer,
    "Qwen2's words": lambda: words(QWEN2),
    "Llama 3's words": lambda: words(LLAMA3),
    "digits": digits,
}


def llava_with(tokenizer, folder):
    """The embedded LLaVA's folder with another tokenizer."""
    shutil.copytree(LLAVA, folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokens_are_equal(name, tmp_path):
    tokenizer = TOKENIZERS[name]()
    folder = llava_with(tokenizer, tmp_path / "model")
    exported(folder, loaded(folder), {}, tmp_path / "out")
    with Gguf().open(tmp_path / "out", "cpu") as engine:
        for text in TEXTS:
            body = {"content": text, "add_special": True, "parse_special": True}
            assert engine._post("/tokenize", body)["tokens"] == tokenizer(text)["input_ids"], text


def test_an_unknown_pre_tokenizer_is_refused(tmp_path):
    folder = llava_with(words(r"\w+"), tmp_path / "model")
    with pytest.raises(InputError, match="does not know how this tokenizer splits text"):
        exported(folder, loaded(folder), {}, tmp_path / "out")


def test_tokens_behind_every_text_are_refused(tmp_path):
    from tokenizers.processors import TemplateProcessing

    tokenizer = plain_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        "$A </s>", special_tokens=[("</s>", 2)]
    )
    folder = llava_with(tokenizer, tmp_path / "model")
    with pytest.raises(InputError, match="start a text with the token bos"):
        exported(folder, loaded(folder), {}, tmp_path / "out")


def test_parts_of_a_chat_are_found_around_pictures_and_prompt():
    def chat(prompt, images):
        return f"<s>[INST] {'<img></img>' * images}\n{prompt} [/INST]"

    assert chat_parts(chat) == ("<s>[INST] ", "\n", " [/INST]")


def test_a_chat_that_puts_pictures_last_is_refused():
    with pytest.raises(InputError, match="before the prompt"):
        chat_parts(lambda prompt, images: f"{prompt}{'<image>' * images}")


def test_the_template_puts_text_between_pictures_and_prompt():
    template = jinja2.Template(chat_template(("USER: ", "\n", " ASSISTANT:"), "</s>"))
    content = "<__media_a__><__media_b__>Is 1 __> 2?"
    first = {"role": "user", "content": content}
    assert template.render(messages=[first]) == (
        "USER: <__media_a__><__media_b__>\nIs 1 __> 2? ASSISTANT:"
    )
    more = [first, {"role": "assistant", "content": "No"}, {"role": "user", "content": "Sure?"}]
    assert template.render(messages=more).endswith(" ASSISTANT: No</s>USER: \nSure? ASSISTANT:")
