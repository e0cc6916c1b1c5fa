"""Published rules that read which option an output chooses."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, get_args

Rule = Literal["letter", "mmbench", "mmmu", "mmstar"]
RULES: tuple[str, ...] = get_args(Rule)
NONE = ""  # no option can be read
CHINESE = "\u2e80"  # the first character of the scripts of East Asia
REFUSALS = (  # as VLMEvalKit lists them
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
STATED = re.compile(
    r"(?:(?:answer|option|choice)(?: is)?:?|(?:答案|选项|选择|选)[是为:]*)"
    r" *\(?([A-Za-z])\)?(?![A-Za-z])",
    re.I,
)
ALONE = re.compile(r"[(\[]?([A-Za-z])(?:[)\].:,、。]+(?:\s.*)?)?", re.DOTALL)
ANOTHER = re.compile(
    r"[)\]]*\s*(?:,|/|&|、|and|or|和|或)\s*(?:and |or )?[(\[]?"
    r"([B-Z]|A(?! (?!are\b|is\b|both\b)[a-z]))(?![A-Za-z'])"  # in "B, A dog", A is an article
)
FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}
INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
NUMBERS = (  # with commas, in scientific notation, and others
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)
Options = Mapping[str, str]  # texts by letter


def letter(output: str, options: Options) -> str:
    """Mmq's own: a letter alone or first, "the answer is B", or the text of just one option.

    Two letters that are named together are none. Letters may be in Chinese sentences.

    >>> [letter(text, {"A": "a cat", "B": "a dog"}) for text in ("b", "(A) a cat", "A dog.", "?")]
    ['B', 'A', 'B', '']
    """
    text = " ".join(output.translate(FULL_WIDTH).split())
    same = [k for k, option in options.items() if _plain(option) == _plain(text) != ""]
    if len(same) == 1:
        return same[0]
    for match in (ALONE.fullmatch(text), STATED.search(text)):
        if match and match[1].upper() in options:
            another = ANOTHER.match(text, match.end(1))
            is_one = another is None or another[1] not in {*options} - {match[1].upper()}
            return match[1].upper() if is_one else NONE
    parts = _named_texts(text.lower(), {k: _plain(o) for k, o in options.items() if _plain(o)})
    return parts[0] if len(parts) == 1 else NONE


def _named_texts(text: str, options: Options) -> list[str]:
    """The options whose texts are in a text; of "a red car", red alone is not."""
    named = []
    for key in sorted(options, key=lambda key: -len(options[key])):
        whole = re.compile(_bounded(options[key]))
        if whole.search(text):
            named.append(key)
        if list(options.values()).count(options[key]) == 1:
            text = whole.sub("\0", text)
    return named


def _bounded(option: str) -> str:
    """A pattern of an option as words of their own; Chinese has no spaces between words."""
    start = r"(?<!\w)" if option[0] < CHINESE else ""
    end = r"(?!\w)" if option[-1] < CHINESE else ""
    return f"{start}{re.escape(option)}{end}"


def _plain(text: str) -> str:
    return " ".join(text.translate(FULL_WIDTH).lower().split()).strip(" .!。")


def mmbench(output: str, options: Options) -> str:
    """VLMEvalKit's `can_infer`, which MMBench uses before it asks a language model.

    Liu et al. 2023, appendix; vlmeval/utils/matching_util.py of 2025. An output that it cannot
    read counts as wrong here; with a judge, a language model would read it.
    """
    return _option_of(output, options) or _text_of(output, options)


def _option_of(output: str, options: Options) -> str:
    """The only letter in the output, among its last five words."""
    if "Failed to obtain answer via API" in output:
        return NONE
    if any(refusal in output for refusal in REFUSALS):
        return "Z"
    words = re.sub(r"[.()\[\],:;!*#{}]", " ", output).split()
    letters = [option for option in options if option in words]
    if len(letters) == 1:
        return letters[0] if words.index(letters[0]) > len(words) - 5 else NONE
    return "Z" if not letters and "Z" in words else NONE


def _text_of(output: str, options: Options) -> str:
    """The only option whose text is in the output, which must not be long."""
    lower = output.lower()
    if len(lower) > 2 * sum(len(text) for text in options.values()):
        return NONE
    parts = [k for k, text in options.items() if text.lower() in lower]
    return parts[0] if len(parts) == 1 else NONE


def mmmu(output: str, options: Options) -> str:
    """MMMU's `parse_multi_choice_response` (Yue et al. 2023, eval/eval_utils.py).

    The last letter in brackets, or else between spaces; or else, in outputs of more than five
    words, the last option text. The official code guesses at random where this gives none.
    """
    for character in ",.!?;:'":
        output = output.strip(character)
    text = f" {output} "
    for form in ("({})", " {} "):
        if letters := [k for k in options if form.format(k) in text]:
            return max(letters, key=lambda k: text.rfind(form.format(k)))
    if len(text.split()) > 5:
        lower = text.lower()
        parts = [k for k, option in options.items() if option.lower() in lower]
        return max(parts, key=lambda k: lower.rfind(options[k].lower()), default=NONE)
    return NONE


def mmstar(output: str, options: Options) -> str:
    """MMStar's `exact_match` (Chen et al. 2024): the first character, or what follows a phrase.

    >>> [mmstar(text, {"A": "", "B": ""}) for text in ("B: red", "(b", "Option A", "Red")]
    ['B', 'B', 'A', '']
    """
    text = output.lower().strip().replace("\n", " ")
    places = [0]
    places += [
        len(start) for start in ("(", "option ", "the answer is ") if text.startswith(start)
    ]
    for place in places:
        if text[place : place + 1].upper() in options:
            return text[place].upper()
    return NONE


READERS: Mapping[str, Callable[[str, Options], str]] = {
    "letter": letter, "mmbench": mmbench, "mmmu": mmmu, "mmstar": mmstar,
}  # fmt: skip


def is_open_answer(output: str, answers: Sequence[str]) -> bool:
    """MMMU's rule for open questions: `parse_open_response` and `eval_open`.

    An answer that is a text must be part of a conclusion in the output; one that is a number must
    equal a number there, rounded to two decimals.
    """
    right = {value for answer in answers for value in _normalized(answer)}
    texts = [value for value in right if isinstance(value, str)]
    conclusions = _conclusions(output)
    numbers = [n for text in conclusions for pattern in NUMBERS for n in pattern.findall(text)]
    for value in (v for text in (*conclusions, *numbers) for v in _normalized(text)):
        if isinstance(value, str):
            if any(text in value for text in texts):
                return True
        elif value in right:
            return True
    return False


def _conclusions(output: str) -> list[str]:
    """What follows the last indicator of each sentence, the shortest; or else the whole output."""
    # the official code looks for capitals after lower-casing: only line breaks end a sentence
    text = output.strip().strip(".").lower()
    sentences = text.split("\n")
    conclusions = []
    for k, sentence in enumerate(sentences):
        marks: Iterable[str] = (*INDICATORS, "=") if k == len(sentences) - 1 else INDICATORS
        tails = [sentence.split(mark)[-1].strip() for mark in marks if mark in sentence]
        shortest = _shortest(tails)
        if shortest and shortest not in (":", ",", ".", "!", "?", ";", "'"):
            conclusions.append(shortest)
    return conclusions or [text]


def _shortest(tails: Iterable[str]) -> str:
    """The shortest tail, as the official loop finds it: an empty one is replaced by the next."""
    shortest = ""
    for tail in tails:
        if not shortest or len(tail) < len(shortest):
            shortest = tail
    return shortest


def _normalized(text: str) -> list[float | str]:
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]
