"""Questions about the relations of a scene's objects, in GQA's structural types."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from mmq_plugins.embedded.scene_text import unique_phrases, with_article
from mmq_plugins.embedded.scenes import COLORS, SHAPES, SIZES, Scene, SceneObject

RELATIONS: dict[str, Callable[[SceneObject, SceneObject], int]] = {
    "to the left of": lambda a, b: b.col - a.col,
    "to the right of": lambda a, b: a.col - b.col,
    "above": lambda a, b: b.row - a.row,
    "below": lambda a, b: a.row - b.row,
}  # positive if it holds, zero if neither it nor its opposite holds


@dataclass(frozen=True, slots=True)
class RelationQuestion:
    """A question with its correct answer; `structural` and `semantic` are GQA's types."""

    text: str
    answer: str
    structural: str  # query, verify, choose, compare or logical
    semantic: str  # rel, attr or obj


Named = list[tuple[SceneObject, list[str]]]  # objects with phrases that fit no other object
Asker = Callable[[Named, random.Random], RelationQuestion | None]


def _two_named(
    named: Named, rng: random.Random
) -> tuple[SceneObject, SceneObject, str, str] | None:
    """Two objects, each with a phrase that fits no other object."""
    (a, first), (b, second) = rng.sample(named, 2)
    return (a, b, rng.choice(first), rng.choice(second)) if first and second else None


def _yes(there: bool) -> str:
    return "yes" if there else "no"


def _query_relation(named: Named, rng: random.Random) -> RelationQuestion | None:
    if (pair := _two_named(named, rng)) is None:
        return None
    target, anchor, _, phrase = pair
    relation, holds = rng.choice(list(RELATIONS.items()))
    related = [o for o, _ in named if o is not anchor and holds(o, anchor) > 0]
    key, given = rng.choice((("color", "shape"), ("shape", "color")))
    value = getattr(target, given)
    if target not in related or sum(getattr(o, given) == value for o in related) != 1:
        return None
    thing = value if given == "shape" else f"{value} object"
    text = f"what {key} is the {thing} {relation} the {phrase}?"
    return RelationQuestion(text, getattr(target, key), "query", "rel")


def _verify_relation(named: Named, rng: random.Random) -> RelationQuestion | None:
    wanted = rng.random() < 0.5  # drawn once, so that rejections do not favour either answer
    for _ in range(20):
        if (pair := _two_named(named, rng)) is None:
            continue
        a, b, first, second = pair
        relation, holds = rng.choice(list(RELATIONS.items()))
        if (holds(a, b) > 0) == wanted and holds(a, b) != 0:
            text = f"is the {first} {relation} the {second}?"
            return RelationQuestion(text, _yes(wanted), "verify", "rel")
    return None


def _choose_relation(named: Named, rng: random.Random) -> RelationQuestion | None:
    if (pair := _two_named(named, rng)) is None:
        return None
    a, b, first, second = pair
    if rng.random() < 0.5:
        text, answer = f"is the {first} above or below the {second}?", "above"
        distance, other = RELATIONS["above"](a, b), "below"
    else:
        text = f"is the {first} to the left or to the right of the {second}?"
        answer, distance, other = "left", RELATIONS["to the left of"](a, b), "right"
    if distance == 0:
        return None
    return RelationQuestion(text, answer if distance > 0 else other, "choose", "rel")


def _exist_relation(named: Named, rng: random.Random) -> RelationQuestion | None:
    wanted = rng.random() < 0.5
    for _ in range(20):
        if (pair := _two_named(named, rng)) is None:
            continue
        other, anchor, _, phrase = pair
        relation, holds = rng.choice(list(RELATIONS.items()))
        key = rng.choice(("color", "shape"))
        value = getattr(other, key)  # an attribute that occurs in the scene
        there = any(
            holds(o, anchor) > 0 and getattr(o, key) == value for o, _ in named if o is not anchor
        )
        if there == wanted:
            thing = value if key == "shape" else f"{value} object"
            text = f"is there {with_article(thing)} {relation} the {phrase}?"
            return RelationQuestion(text, _yes(wanted), "verify", "rel")
    return None


def _compare_same(named: Named, rng: random.Random) -> RelationQuestion | None:
    wanted = rng.random() < 0.5
    for _ in range(30):
        if (pair := _two_named(named, rng)) is None:
            continue
        a, b, first, second = pair
        key = rng.choice(("color", "shape", "size"))
        words = {word for phrase in (first, second) for word in phrase.split()}
        if (
            getattr(a, key) in words or getattr(b, key) in words
        ):  # the question would give the answer
            continue
        if (getattr(a, key) == getattr(b, key)) == wanted:
            text = f"do the {first} and the {second} have the same {key}?"
            return RelationQuestion(text, _yes(wanted), "compare", "attr")
    return None


def _compare_size(named: Named, rng: random.Random) -> RelationQuestion | None:
    wanted = rng.random() < 0.5
    for _ in range(20):
        if (pair := _two_named(named, rng)) is None:
            continue
        a, b, first, second = pair
        if set(SIZES) & {*first.split(), *second.split()} or a.size == b.size:
            continue
        word = rng.choice(("larger", "smaller"))
        larger = SIZES.index(a.size) > SIZES.index(b.size)
        if (larger == (word == "larger")) == wanted:
            text = f"is the {first} {word} than the {second}?"
            return RelationQuestion(text, _yes(wanted), "compare", "attr")
    return None


def _choose_attribute(named: Named, rng: random.Random) -> RelationQuestion | None:
    o, fitting = rng.choice(named)
    key, words = rng.choice((("color", list(COLORS)), ("shape", SHAPES), ("size", SIZES)))
    value = getattr(o, key)
    phrases = [p for p in fitting if value not in p.split()]
    if not phrases:
        return None
    others = [getattr(p, key) for p, _ in named if getattr(p, key) != value]
    other = rng.choice(others or [word for word in words if word != value])
    first, second = rng.sample((value, other), 2)
    if key == "shape":
        first, second = with_article(first), with_article(second)
    text = f"is the {rng.choice(phrases)} {first} or {second}?"
    return RelationQuestion(text, value, "choose", "attr")


def _logical(named: Named, rng: random.Random) -> RelationQuestion | None:
    wanted, word = rng.random() < 0.5, rng.choice(("and", "or"))
    pairs = {(o.color, o.shape) for o, _ in named}
    colors, shapes = sorted({c for c, _ in pairs}), sorted({s for _, s in pairs})
    for _ in range(20):
        candidates = [
            rng.choice(sorted(pairs))
            if rng.random() < 0.5
            else (rng.choice(colors), rng.choice(shapes))
            for _ in range(2)
        ]
        there = [pair in pairs for pair in candidates]
        if (
            candidates[0] != candidates[1]
            and (all(there) if word == "and" else any(there)) == wanted
        ):
            first, second = (with_article(" ".join(pair)) for pair in candidates)
            text = f"is there {first} {word} {second}?"
            return RelationQuestion(text, _yes(wanted), "logical", "obj")
    return None


def _exist(named: Named, rng: random.Random) -> RelationQuestion:
    color, shape = rng.choice(list(COLORS)), named[0][0].shape
    there = any((o.color, o.shape) == (color, shape) for o, _ in named)
    text = f"is there {with_article(f'{color} {shape}')}?"
    return RelationQuestion(text, _yes(there), "verify", "obj")


_ASKERS: tuple[tuple[int, Asker], ...] = (
    (4, _query_relation),
    (3, _verify_relation),
    (3, _choose_relation),
    (2, _exist_relation),
    (2, _compare_same),
    (2, _compare_size),
    (3, _choose_attribute),
    (2, _logical),
)


def ask_relations(scene: Scene, rng: random.Random, count: int) -> list[RelationQuestion]:
    """Relational questions of random kinds, each with exactly one correct answer in this scene."""
    named = [(o, unique_phrases(scene, o)) for o in scene.objects]
    return [_ask(named, rng) for _ in range(count)]


def _ask(named: Named, rng: random.Random) -> RelationQuestion:
    weights, askers = zip(*_ASKERS, strict=True)
    for asker in rng.choices(askers, weights, k=10):
        for _ in range(20):
            question: RelationQuestion | None = asker(named, rng)
            if question:
                return question
    return _exist(named, rng)  # all objects are identical: no phrase fits only one
