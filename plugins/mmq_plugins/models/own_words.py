"""The prompts that models without a chat template were trained on, by model type."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mmq.contracts import AnswerFormat, AnswerProtocol, GenerationConfig

CAPTION, SHORT, CHOICE, FREE = AnswerFormat


@dataclass(frozen=True, slots=True)
class OwnWords:
    """The prompts of a kind of model, and what is special about its inputs.

    one_by_one: why its answers would depend on their batch, with versions of transformers before
    `fixed_in` (0: with all). answer_type: the `token_type_ids` of an answer in training.
    needs_pictures: its forward refuses texts alone, though its signature does not show it.
    """

    prompts: Mapping[AnswerFormat, AnswerProtocol] = field(default_factory=dict)
    one_by_one: str = ""
    fixed_in: int = 0
    answer_type: int = 0
    needs_pictures: bool = False


def _words(
    caption: str, question: str, free: str = "", penalty: float = 1.0, beams: int = 1
) -> dict[AnswerFormat, AnswerProtocol]:
    """Protocols for every format; `{}` is the question."""
    long = GenerationConfig(max_new_tokens=30, num_beams=beams)
    short = GenerationConfig(max_new_tokens=10, num_beams=beams, length_penalty=penalty)
    generation = GenerationConfig(max_new_tokens=512 if beams == 1 else 100, num_beams=beams)
    return {
        CAPTION: AnswerProtocol(caption, long),
        SHORT: AnswerProtocol(question, short),
        CHOICE: AnswerProtocol(question, short),
        FREE: AnswerProtocol(free or question, generation),
    }


POSITIONS = "its positions count the padding of a batch"
DECODER = "its decoder reads the prompt, whose padding would count"
OWN_WORDS: Mapping[str, OwnWords] = {
    # Beyer et al. 2024, appendix: task prefixes; the processor adds the line break
    "paligemma": OwnWords(_words("caption en", "answer en {}"), answer_type=1),
    # Xiao et al. 2023: a task token alone, or any other text
    "florence2": OwnWords(_words("<CAPTION>", "{}")),
    # Li et al. 2022: captions without a prompt
    "blip": OwnWords(_words("", "{}")),
    # Wang et al. 2022: captions without a prompt, answers right after the question
    "git": OwnWords(_words("", "{}"), POSITIONS, fixed_in=5),
    # LAVIS's evaluation; a T5's answers are short by a length penalty of -1
    "blip-2": OwnWords(
        _words("", "Question: {} Short answer:", "Question: {} Answer:", -1.0, beams=5)
    ),
    "instructblip": OwnWords(
        _words("A short image description.", "Question: {} Short answer:", "{}", -1.0, beams=5)
    ),
    # Peng et al. 2023
    "kosmos-2": OwnWords(
        _words("An image of", "Question: {} Answer:"), POSITIONS, needs_pictures=True
    ),
    # every picture's tokens are expected at the start of a row, where padding would be
    "kosmos-2.5": OwnWords(one_by_one=POSITIONS),
    "idefics": OwnWords(needs_pictures=True),
    "pix2struct": OwnWords(_words("", "{}"), DECODER),
    # naver-clova-ix/donut-base-finetuned-docvqa
    "vision-encoder-decoder": OwnWords(
        _words("", "<s_docvqa><s_question>{}</s_question><s_answer>"), DECODER
    ),
    "fuyu": OwnWords(_words("Generate a coco-style caption.\n", "{}\n")),
    "diffusion_gemma": OwnWords(one_by_one=POSITIONS),
    # their language model continues from the longest prompt's positions
    "qwen2_vl": OwnWords(one_by_one=POSITIONS, fixed_in=5),
    "qwen2_5_vl": OwnWords(one_by_one=POSITIONS, fixed_in=5),
}
NONE = OwnWords()
