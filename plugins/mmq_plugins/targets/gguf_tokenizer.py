"""A tokenizer of transformers as GGUF metadata, and a chat template that writes mmq's prompts."""

import json
from collections.abc import Mapping
from typing import Any

from mmq.errors import InputError
from mmq_plugins.targets.gguf_file import gguf_package

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


def _splitter(settings: Mapping[str, Any]) -> str:
    """llama.cpp's name for how a byte-level tokenizer splits text; "" for none."""
    steps = settings.get("pretokenizers", [settings])
    kinds = [step["type"] for step in steps]
    whole = steps[-1].get("use_regex", True) and not steps[-1].get("add_prefix_space")
    if kinds == ["ByteLevel"] and whole:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and whole and steps[0]["individual_digits"]:
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        pattern = steps[0]["pattern"].get("Regex", "")
        return {QWEN2: "qwen2", LLAMA3: "llama-bpe"}.get(pattern, "")
    return ""


def _merges(model: Mapping[str, Any]) -> list[str]:
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]


def _scores(vocabulary: Mapping[str, int], model: Mapping[str, Any]) -> list[float]:
    """A score per token in whose order SentencePiece merges: that of the first merge to it."""
    scores = [0.0] * (max(vocabulary.values()) + 1)
    for rank, merge in enumerate(_merges(model)):
        token = vocabulary.get("".join(merge.split(" ", 1)))
        if token is not None and scores[token] == 0.0:
            scores[token] = -float(rank + 1)
    return scores


def add_tokenizer(keys: Any, tokenizer: Any, size: int, chat: tuple[str, str, str]) -> None:
    """Add the vocabulary, its merges or scores, the special tokens and the chat template.

    InputError for a tokenizer that llama.cpp would cut otherwise.
    """
    facts = json.loads(tokenizer.backend_tokenizer.to_str())
    model = facts["model"]
    if model["type"] != "BPE":
        raise InputError(f"the target gguf writes BPE tokenizers, but this one is {model['type']}")
    pieces = bool(model.get("byte_fallback"))  # SentencePiece's, as Llama 2 has
    splitter = "default" if pieces else _splitter(facts["pre_tokenizer"] or {"type": "none"})
    if not splitter:
        raise InputError(
            "the target gguf does not know how this tokenizer splits text into words; give --from "
            "model.gguf,mmproj.gguf with 16-bit files of this model"
        )
    vocabulary = dict(model["vocab"]) | {a["content"]: a["id"] for a in facts["added_tokens"]}
    special = {a["id"]: bool(a["special"]) for a in facts["added_tokens"]}
    names = {number: token for token, number in vocabulary.items()}
    keys.add_tokenizer_model("llama" if pieces else "gpt2")
    keys.add_tokenizer_pre(splitter)
    keys.add_token_list([names.get(k, f"[PAD{k}]") for k in range(size)])
    if pieces:
        scores = _scores(vocabulary, model)
        keys.add_token_scores([*scores, *[0.0] * (size - len(scores))][:size])
        prefixed = any(step["type"] == "Prepend" for step in _steps(facts.get("normalizer"))) or (
            facts["pre_tokenizer"] or {}
        ).get("prepend_scheme") in ("always", "first")
        keys.add_add_space_prefix(prefixed)
    else:
        keys.add_token_merges(_merges(model))
    keys.add_token_types([_token_type(k, names, special, pieces) for k in range(size)])
    _add_special_tokens(keys, tokenizer)
    keys.add_chat_template(chat_template(chat, getattr(tokenizer, "eos_token", "") or ""))


def _steps(normalizer: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if not normalizer:
        return []
    steps: list[Mapping[str, Any]] = normalizer.get("normalizers", [normalizer])
    return steps


def _token_type(
    token: int, names: Mapping[int, str], special: Mapping[int, bool], pieces: bool
) -> int:
    kinds = gguf_package().TokenType
    if token not in names:
        return int(kinds.UNUSED)
    name = names[token]
    if pieces and name == "<unk>":
        return int(kinds.UNKNOWN)
    if pieces and len(name) == 6 and name.startswith("<0x"):
        return int(kinds.BYTE)
    if token in special:
        return int(kinds.CONTROL if special[token] else kinds.USER_DEFINED)
    return int(kinds.NORMAL)


def _add_special_tokens(keys: Any, tokenizer: Any) -> None:
    """Ids of the special tokens, and whether a text starts with the first.

    InputError for a tokenizer that puts other tokens around a text.
    """
    for name in ("bos", "eos", "unk", "pad"):
        if (token := getattr(tokenizer, f"{name}_token_id", None)) is not None:
            getattr(keys, f"add_{name}_token_id")(token)
    whole = tokenizer("a")["input_ids"]
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    if whole not in (plain, [tokenizer.bos_token_id, *plain]):
        raise InputError(
            f"the target gguf writes tokenizers that start a text with the token bos, or with "
            f"none, but this one encodes 'a' as {tokenizer.convert_ids_to_tokens(whole)}"
        )
    keys.add_add_bos_token(whole != plain)


def chat_parts(chat: Any) -> tuple[str, str, str]:
    """What a family writes before the pictures, between them and the prompt, and after it.

    chat(prompt, images): the family's rendering of one message. The pictures' own text is what a
    second picture adds.
    """
    mark = "\N{OBJECT REPLACEMENT CHARACTER}"
    one, two = chat(mark, 1), chat(mark, 2)
    length = len(two) - len(one)
    before, behind = one.split(mark)
    for start in range(len(before) - length + 1):
        image = before[start : start + length]
        if two == one[:start] + image + one[start:] and length > 0:
            return before[:start], before[start + length :], behind
    raise InputError("the model's chat template does not put its pictures before the prompt")


def chat_template(chat: tuple[str, str, str], end: str) -> str:
    """A Jinja template that writes a request as the family does, pictures first.

    llama.cpp hands it pictures and text joined into one string, where a marker such as
    <__media_x__> stands for a picture: markers are cut off, so that text can be put between.
    """
    before, between, behind, last = (json.dumps(t, ensure_ascii=False) for t in (*chat, end))
    marker, text = "piece.startswith('<__media')", "message['content']"
    return (
        "{%- for message in messages -%}{%- if message['role'] == 'assistant' -%}"
        f"{{{{- ' ' + {text} + {last} -}}}}{{%- else -%}}{{{{- {before} -}}}}"
        f"{{%- set pieces = {text}.split('__>') -%}}{{%- set seen = namespace(text=false) -%}}"
        f"{{%- for piece in pieces -%}}{{%- if {marker} -%}}{{{{- piece + '__>' -}}}}"
        f"{{%- endif -%}}{{%- endfor -%}}{{{{- {between} -}}}}"
        f"{{%- for piece in pieces -%}}{{%- if not {marker} -%}}"
        "{{- ('__>' if seen.text else '') + piece -}}{%- set seen.text = true -%}"
        f"{{%- endif -%}}{{%- endfor -%}}{{{{- {behind} -}}}}{{%- endif -%}}{{%- endfor -%}}"
    )
