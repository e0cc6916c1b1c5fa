"""The embedded task is deterministic and compositional, with one correct answer per question."""

import random

from mmq_plugins.embedded import scenes
from mmq_plugins.embedded.scene_pairs import edit, full_captions, minimal_group, named
from mmq_plugins.embedded.scene_relations import ask_relations
from mmq_plugins.embedded.scene_text import annotate, ask, captions


def test_the_same_index_is_the_same_scene_and_picture():
    for split in ("train", "test"):
        first, second = scenes.make_scene(7, split), scenes.make_scene(7, split)
        assert first == second
        assert scenes.encode_jpeg(scenes.render(first)) == scenes.encode_jpeg(
            scenes.render(second)
        )


def test_held_out_pairs_are_never_trained_and_in_every_second_test_scene():
    assert not any(o.held_out for k in range(2000) for o in scenes.make_scene(k).objects)
    held = [any(o.held_out for o in scenes.make_scene(k, "test").objects) for k in range(400)]
    assert all(held[::2])
    assert len(scenes.HELD_OUT_PAIRS) == 6


def test_cell_labels_describe_the_content_of_each_cell():
    scene = scenes.make_scene(3)
    labels = scenes.cell_labels(scene)
    filled = {(o.row * 4 + o.col) for o in scene.objects}
    for cell in range(16):
        assert (labels[cell, 0] == len(scenes.SHAPES)) == (cell not in filled)


def answer_by_looking(scene, question):
    """An independent reader of the questions: it parses the text."""
    words = question.text.rstrip("?").split()
    objects = [{o.shape, o.color, o.size} for o in scene.objects]
    if words[:2] == ["is", "there"]:
        return "yes" if any(set(words[3:]) <= o for o in objects) else "no"
    if words[:2] == ["how", "many"]:
        attributes = set(words[2:-2]) - {"shapes", "objects"}
        return str(sum(attributes <= o for o in objects))
    if "background" in words:
        return scene.background
    fitting = [
        o for o in scene.objects
        if set(words[words.index("the") + 1 :]) - {"object"} <= {o.shape, o.color, o.size}
    ]  # fmt: skip
    assert len(fitting) == 1, "the question has more than one answer"
    o = fitting[0]
    if words[0] == "where":
        return f"{'top' if o.row < 2 else 'bottom'} {'left' if o.col < 2 else 'right'}"
    return getattr(o, words[1])


def test_every_answer_is_right_and_unique():
    rng = random.Random(0)
    for index in range(1500):
        scene = scenes.make_scene(index, "test")
        question = ask(scene, rng)
        assert question.answer == answer_by_looking(scene, question), question


def test_yes_and_no_are_balanced_and_every_kind_occurs():
    rng = random.Random(0)
    questions = [ask(scenes.make_scene(k), rng) for k in range(3000)]
    yes_no = [q.answer for q in questions if q.answer_type == "yes/no"]
    assert 0.45 < yes_no.count("yes") / len(yes_no) < 0.55
    kinds = {q.kind for q in questions}
    assert kinds == {"exist", "count", "color", "shape", "size", "background", "where"}


def test_annotators_mostly_agree_and_captions_differ():
    rng = random.Random(0)
    for index in range(200):
        scene = scenes.make_scene(index)
        question = ask(scene, rng)
        answers = annotate(question, rng)
        assert len(answers) == 10
        assert answers.count(question.answer) >= 7
        assert len(set(captions(scene, rng))) == 5


def fitting(scene, words):
    """Objects that have all these words."""
    attributes = set(words) - {"object", "a", "an", "the"}
    return [o for o in scene.objects if attributes <= {o.shape, o.color, o.size}]


def the(scene, words):
    result = fitting(scene, words)
    assert len(result) == 1, f"{words} does not name one object"
    return result[0]


def stands(a, b, relation):
    return {
        "left": a.col < b.col,
        "right": a.col > b.col,
        "above": a.row < b.row,
        "below": a.row > b.row,
    }[relation]


PLACES = {"left", "right", "above", "below"}


def split_relation(words):
    """(words before, relation, words after) of a phrase like `x to the left of the y`."""
    at = next(k for k, word in enumerate(words) if word in PLACES)
    vertical = words[at] in ("above", "below")
    return words[: at if vertical else at - 2], words[at], words[at + (1 if vertical else 2) :]


def relate_by_looking(scene, question):
    """An independent reader of the relational questions: it parses the text."""
    words = question.text.rstrip("?").replace(" shape", "").split()
    yes = {True: "yes", False: "no"}
    if words[0] == "what":
        what, (before, relation, behind) = question.text.split()[1], split_relation(words[3:])
        anchor = the(scene, behind)
        result = [
            o for o in fitting(scene, before) if o is not anchor and stands(o, anchor, relation)
        ]
        assert len(result) == 1, question
        return getattr(result[0], what)
    if words[:2] == ["is", "there"]:
        if PLACES & set(words):
            before, relation, behind = split_relation(words[2:])
            anchor = the(scene, behind)
            return yes[
                any(
                    o is not anchor and stands(o, anchor, relation) for o in fitting(scene, before)
                )
            ]
        joint = next((word for word in words if word in ("and", "or")), None)
        if joint is None:
            return yes[bool(fitting(scene, words[2:]))]
        at = words.index(joint)
        both = [bool(fitting(scene, part)) for part in (words[2:at], words[at + 1 :])]
        return yes[all(both) if joint == "and" else any(both)]
    if words[0] == "do":
        at = words.index("and")
        a, b = the(scene, words[1:at]), the(scene, words[at + 1 : words.index("have")])
        key = question.text.rstrip("?").split()[-1]
        return yes[getattr(a, key) == getattr(b, key)]
    if "than" in words:
        word = "larger" if "larger" in words else "smaller"
        a = the(scene, words[1 : words.index(word)])
        b = the(scene, words[words.index("than") + 1 :])
        sizes = scenes.SIZES.index(a.size), scenes.SIZES.index(b.size)
        return yes[sizes[0] > sizes[1] if word == "larger" else sizes[0] < sizes[1]]
    if "or" in words and PLACES & set(words):
        first = min(words.index(place) for place in PLACES & set(words))
        last = max(k for k, word in enumerate(words) if word in PLACES)
        start = first if words[first] in ("above", "below") else first - 2
        a, b = the(scene, words[1:start]), the(scene, words[last + 1 :][("of" in words) :])
        return next(place for place in (words[first], words[last]) if stands(a, b, place))
    if "or" in words:
        at = words.index("or")
        choices = [words[at - 1], words[-1]]
        rest = [word for word in words[1 : at - 1] if word not in ("a", "an")]
        o = the(scene, rest)
        return next(choice for choice in choices if choice in (o.shape, o.color, o.size))
    before, relation, behind = split_relation(words[1:])
    return yes[stands(the(scene, before), the(scene, behind), relation)]


def test_every_relational_answer_is_right_and_unique():
    rng = random.Random(0)
    for index in range(600):
        scene = scenes.make_scene(index, "test")
        for question in ask_relations(scene, rng, 3):
            assert question.answer == relate_by_looking(scene, question), question


def test_relational_questions_are_of_all_types_and_yes_does_not_win():
    rng = random.Random(0)
    questions = [q for k in range(800) for q in ask_relations(scenes.make_scene(k), rng, 3)]
    kinds = {(q.structural, q.semantic) for q in questions}
    assert {structural for structural, _ in kinds} == {
        "query", "verify", "choose", "compare", "logical"
    }  # fmt: skip
    assert {semantic for _, semantic in kinds} == {"rel", "attr", "obj"}
    for structural, limits in (("verify", (0.45, 0.56)), ("compare", (0.4, 0.6))):
        answers = [q.answer for q in questions if q.structural == structural]
        assert limits[0] < answers.count("yes") / len(answers) < limits[1], structural


def test_a_group_has_minimal_pairs_that_captions_distinguish():
    rng = random.Random(0)
    for index in range(30):
        group = minimal_group(scenes.make_scene(index, "test"), rng)
        assert len({tuple(sorted(named(scene))) for scene in group}) == len(group) == 10
        captions = [full_captions(scene) for scene in group]
        assert all(len(set(column)) == 10 for column in zip(*captions, strict=True))
        first = group[0].objects
        for other in group[1:]:
            changed = [a != b for a, b in zip(first, other.objects, strict=True)]
            assert 1 <= sum(changed) <= 2
            assert other.background == group[0].background


def test_an_edited_training_scene_never_contains_a_held_out_pair():
    rng = random.Random(0)
    edits = [edit(scenes.make_scene(k), rng) for k in range(1500)]
    assert not any(o.held_out for scene in edits if scene for o in scene.objects)
    assert sum(scene is not None for scene in edits) > 500
