"""Minimal pairs of scenes, and captions that distinguish them."""

import random
from dataclasses import replace

from mmq_plugins.embedded.scene_text import (
    NUMBER_WORDS,
    listing,
    salient_objects,
    with_article,
)
from mmq_plugins.embedded.scenes import COLORS, RADII, SHAPES, SIZES, Scene, SceneObject

GROUP = 10  # scenes of a group of minimal pairs
EXCHANGED = (
    0.4  # share of edits that exchange attributes of two objects, invisible to a bag of words
)
ATTRIBUTES = {"color": tuple(COLORS), "shape": SHAPES, "size": SIZES}


def named(scene: Scene) -> list[str]:
    """The objects that captions name, each in full, the largest first."""
    return [f"{o.size} {o.color} {o.shape}" for o in salient_objects(scene)]


def full_captions(scene: Scene) -> list[str]:
    """Five captions that name the same objects in full, so each identifies its scene."""
    things = listing([with_article(name) for name in named(scene)])
    return [
        things,
        f"{things} on a {scene.background} background",
        f"there is {things}",
        f"{NUMBER_WORDS[len(scene.objects)]} shapes including {things}",
        f"a picture of {things}",
    ]


def edit(scene: Scene, rng: random.Random) -> Scene | None:
    """The scene with another colour, shape or size of a named object, or with two objects' colours
    or shapes exchanged; None if captions would not change, or if it has a pair that is held out of
    training.
    """
    change = _exchange if rng.random() < EXCHANGED else _alter
    changed = change(salient_objects(scene), rng)
    if scene.split == "train" and any(o.held_out for o in changed.values()):
        return None
    edited = replace(scene, objects=tuple(changed.get(o, o) for o in scene.objects))
    return None if sorted(named(edited)) == sorted(named(scene)) else edited


def _alter(objects: list[SceneObject], rng: random.Random) -> dict[SceneObject, SceneObject]:
    target = rng.choice(objects)
    name = rng.choice(tuple(ATTRIBUTES))
    value = rng.choice(ATTRIBUTES[name])
    if name == "color":
        return {target: replace(target, color=value)}
    if name == "shape":
        return {target: replace(target, shape=value)}
    radius = target.radius / RADII[target.size] * RADII[value]
    return {target: replace(target, size=value, radius=radius)}


def _exchange(objects: list[SceneObject], rng: random.Random) -> dict[SceneObject, SceneObject]:
    a, b = rng.sample(objects, 2)
    if rng.random() < 0.5:
        return {a: replace(a, color=b.color), b: replace(b, color=a.color)}
    return {a: replace(a, shape=b.shape), b: replace(b, shape=a.shape)}


def minimal_group(scene: Scene, rng: random.Random) -> list[Scene]:
    """The scene and nine edits of it, no two of which have the same captions."""
    group = {tuple(sorted(named(scene))): scene}
    while len(group) < GROUP:
        if edited := edit(scene, rng):
            group.setdefault(tuple(sorted(named(edited))), edited)
    return list(group.values())
