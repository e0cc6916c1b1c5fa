"""Texts about a scene: five captions, and questions of seven kinds with ten answers each."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from mmq_plugins.embedded.scenes import BACKGROUNDS, COLORS, SHAPES, SIZES, Scene, SceneObject

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five")
CAPTIONS_PER_IMAGE = 5
ANSWERS_PER_QUESTION = 10


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its correct answer; `answer_type` is VQAv2's, `kind` is ours."""

    text: str
    answer: str
    answer_type: str
    kind: str


def with_article(phrase: str) -> str:
    """The phrase with a or an."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def listing(phrases: list[str]) -> str:
    """Phrases joined by commas and "and"."""
    if len(phrases) == 1:
        return phrases[0]
    return ", ".join(phrases[:-1]) + " and " + phrases[-1]


def _relation(a: SceneObject, b: SceneObject) -> str:
    dx, dy = a.col - b.col, a.row - b.row
    if abs(dx) >= abs(dy):
        return "to the left of" if dx < 0 else "to the right of"
    return "above" if dy < 0 else "below"


def salient_objects(scene: Scene) -> list[SceneObject]:
    """The objects that captions name: up to three, the largest first."""
    return sorted(scene.objects, key=lambda o: (-SIZES.index(o.size), o.row, o.col))[:3]


def captions(scene: Scene, rng: random.Random, count: int = CAPTIONS_PER_IMAGE) -> list[str]:
    """`count` different captions out of seven templates, the plain listing among them.

    They name the salient objects.
    """
    salient = salient_objects(scene)
    full = [with_article(f"{o.size} {o.color} {o.shape}") for o in salient]
    short = [with_article(f"{o.color} {o.shape}") for o in salient]
    total = NUMBER_WORDS[len(scene.objects)]
    templates = [
        listing(full),
        f"{listing(full)} on a {scene.background} background",
        f"there is {listing(full)}",
        f"{total} shapes including {listing(full)}",
        f"{full[0]} {_relation(salient[0], salient[1])} {full[1]}",
        f"{listing(short)} on a {scene.background} background",
        f"a picture of {listing(full)}",
    ]
    if count == 1:
        return [rng.choice(templates)]
    return [templates[0], *rng.sample(templates[1:], count - 1)]


def unique_phrases(scene: Scene, o: SceneObject) -> list[str]:
    """Noun phrases that fit `o` and nothing else in the scene, shortest first."""
    phrases = []
    for keys in (
        ("shape",),
        ("color",),
        ("color", "shape"),
        ("size", "shape"),
        ("size", "color", "shape"),
    ):
        words = [getattr(o, key) for key in keys]
        fitting = sum([getattr(p, key) for key in keys] == words for p in scene.objects)
        if fitting == 1:
            phrases.append(" ".join(words if "shape" in keys else [*words, "object"]))
    return phrases


def _ask_exist(scene: Scene, rng: random.Random) -> Question | None:
    wanted = rng.random() < 0.5  # drawn once, so that rejections do not favour either answer
    for _ in range(20):
        o, other = rng.choice(scene.objects), rng.choice(scene.objects)
        first = rng.choice(("color", "color", "size"))
        word, shape = getattr(o, first), o.shape
        if (
            not wanted
        ):  # mostly combined from attributes in the scene, so that each alone is not enough
            shape = other.shape if rng.random() < 0.7 else rng.choice(SHAPES)
            if rng.random() < 0.3:
                word = rng.choice(list(COLORS) if first == "color" else SIZES)
        there = any(getattr(p, first) == word and p.shape == shape for p in scene.objects)
        if there == wanted:
            text = f"is there {with_article(f'{word} {shape}')}?"
            return Question(text, "yes" if there else "no", "yes/no", "exist")
    return None


def _ask_count(scene: Scene, rng: random.Random) -> Question | None:
    o, choice = rng.choice(scene.objects), rng.random()
    if choice < 0.45:
        what, n = f"{o.shape} shapes", sum(p.shape == o.shape for p in scene.objects)
    elif choice < 0.8:
        what, n = f"{o.color} objects", sum(p.color == o.color for p in scene.objects)
    else:
        what, n = "objects", len(scene.objects)
    if n == 1 and rng.random() < 0.6:  # otherwise most answers would be 1
        return None
    return Question(f"how many {what} are there?", str(n), "number", "count")


def _ask_attribute(name: str) -> Callable[[Scene, random.Random], Question | None]:
    def ask(scene: Scene, rng: random.Random) -> Question | None:
        o = rng.choice(scene.objects)
        value = getattr(o, name)
        phrases = [p for p in unique_phrases(scene, o) if value not in p.split()]
        if not phrases:
            return None
        return Question(f"what {name} is the {rng.choice(phrases)}?", value, "other", name)

    return ask


def _ask_background(scene: Scene, rng: random.Random) -> Question:
    return Question("what color is the background?", scene.background, "other", "background")


def _ask_where(scene: Scene, rng: random.Random) -> Question | None:
    o = rng.choice(scene.objects)
    phrases = unique_phrases(scene, o)
    if not phrases:
        return None
    place = f"{'top' if o.row < 2 else 'bottom'} {'left' if o.col < 2 else 'right'}"
    return Question(f"where is the {rng.choice(phrases)}?", place, "other", "where")


# weights as VQAv2's shares: 38% yes/no, 12% number, 50% other (counting a little more often here)
_ASKERS: tuple[tuple[int, Callable[[Scene, random.Random], Question | None]], ...] = (
    (7, _ask_exist),
    (4, _ask_count),
    (4, _ask_attribute("color")),
    (3, _ask_attribute("shape")),
    (2, _ask_attribute("size")),
    (1, _ask_background),
    (2, _ask_where),
)


def ask(scene: Scene, rng: random.Random) -> Question:
    """One question of a random kind that has exactly one correct answer in this scene."""
    weights, askers = zip(*_ASKERS, strict=True)
    asker = rng.choices(askers, weights)[0]
    for _ in range(50):
        question: Question | None = asker(scene, rng)
        if question:
            return question
    return Question("how many objects are there?", str(len(scene.objects)), "number", "count")


def annotate(question: Question, rng: random.Random) -> list[str]:
    """Ten human-like answers: 7 to 10 agree, the rest share one plausible mistake."""
    agreeing = rng.choice((10, 10, 9, 9, 8, 7))
    answer = question.answer
    if question.answer_type == "yes/no":
        mistake = "no" if answer == "yes" else "yes"
    elif answer.isdigit():
        mistake = str(max(0, int(answer) + rng.choice((-1, 1))))
    else:
        families = (tuple(COLORS), SHAPES, SIZES, tuple(BACKGROUNDS))
        family = next((f for f in families if answer in f), ("top left", "bottom right"))
        mistake = rng.choice([word for word in family if word != answer])
    return [answer] * agreeing + [mistake] * (ANSWERS_PER_QUESTION - agreeing)
