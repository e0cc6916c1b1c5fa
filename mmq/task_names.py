"""The tasks that --task names, and the options that have one value per task."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmq.errors import InputError


def parse_tasks(text: str) -> dict[str, str]:
    """The evaluator of every task, by the task's label: its name, numbered if it is repeated.

    Labels are parts of metrics' and options' names: a colon becomes a hyphen.

    >>> parse_tasks("vqa,captioning"), parse_tasks("short-answer, short-answer")
    ({'vqa': 'vqa', 'captioning': 'captioning'}, {'short-answer': 'short-answer', \
'short-answer-2': 'short-answer'})
    """
    tasks: dict[str, str] = {}
    names = [name.strip() for name in text.split(",")]
    for k, name in enumerate(names):
        if not name:
            raise InputError(f"task: {text!r} has an empty name; write e.g. vqa,captioning")
        number = names[: k + 1].count(name)
        label = _label(name)
        tasks[label if number == 1 else f"{label}-{number}"] = name
    return tasks


def _label(text: str) -> str:
    return text.strip().replace(":", "-")


def has_several(text: str) -> bool:
    """Whether --task names several tasks."""
    return "," in text


def single_task(text: str) -> str:
    """The task that --task names; InputError for several, which most commands do not score."""
    if has_several(text):
        raise InputError(
            f"task: this command scores one task, not {text!r}; `mmq search`, `mmq trial`, "
            f"`mmq evaluate-baseline` and `mmq export` accept several"
        )
    return text


def by_task(option: str, text: str, labels: Sequence[str], example: str) -> dict[str, str]:
    """The value of an option for every task: one for all, one each in order, or LABEL=VALUE,...

    example: a value, for error messages.

    >>> by_task("limit", "500", ["vqa", "captioning"], "500")
    {'vqa': '500', 'captioning': '500'}
    >>> by_task("data", "a,b", ["vqa", "captioning"], "a")
    {'vqa': 'a', 'captioning': 'b'}
    >>> by_task("data", "captioning=b,vqa=a", ["vqa", "captioning"], "a")
    {'vqa': 'a', 'captioning': 'b'}
    """
    if (values_by_label := _named(option, text, labels, example)) is not None:
        return values_by_label
    values = [value.strip() for value in text.split(",")]
    if len(values) == 1 or _exists(text):
        return dict.fromkeys(labels, text)
    if len(values) != len(labels):
        raise InputError(
            f"{option}: {text!r} has {len(values)} values for {len(labels)} tasks; give one for "
            f"all, one for each in the order {','.join(labels)}, or "
            f"{','.join(f'{label}={example}' for label in labels)}"
        )
    return dict(zip(labels, values, strict=True))


def join_by_task(values: Mapping[str, str]) -> str:
    """The inverse of `by_task`: one value if all tasks have it, else LABEL=VALUE,...

    >>> join_by_task({"vqa": "500", "gqa": "500"}), join_by_task({"vqa": "a", "gqa": "b"})
    ('500', 'vqa=a,gqa=b')
    """
    different = dict.fromkeys(values.values())
    if len(different) == 1:
        return next(iter(different))
    return ",".join(f"{label}={value}" for label, value in values.items())


def join_fields(fields: Mapping[str, str]) -> str:
    """The inverse of `fields_by_task`.

    >>> join_fields({"vqa": "image=photo,answers=label", "captioning": "image=photo"})
    'vqa.image=photo,vqa.answers=label,captioning.image=photo'
    """
    if len(set(fields.values())) == 1:
        return next(iter(fields.values()))
    return ",".join(
        f"{label}.{pair}" for label, own in fields.items() for pair in own.split(",") if pair
    )


def short_names(data: str) -> str:
    """The last parts of the paths that --data names, for titles.

    >>> short_names("/data/vqav2/"), short_names("vqa=/data/vqav2/,captioning=coco/val.csv")
    ('vqav2', 'vqav2,val.csv')
    """
    return ",".join(last_part(path.rpartition("=")[2]) for path in data.split(","))


def last_part(path: str) -> str:
    """The last part of a path or of a hub name."""
    return path.rstrip("/").split("/")[-1]


def mix_by_task(option: str, text: str, labels: Sequence[str], example: str) -> dict[str, str]:
    """As `by_task`, for a value that may contain commas: one for all, or LABEL=VALUE,..."""
    values_by_label = _named(option, text, labels, example)
    return dict.fromkeys(labels, text) if values_by_label is None else values_by_label


def fields_by_task(text: str, labels: Sequence[str]) -> dict[str, str]:
    """The --fields of every task: FIELD=COLUMN for all, LABEL.FIELD=COLUMN for one of them.

    >>> fields_by_task("image=photo,vqa.answers=label", ["vqa", "captioning"])
    {'vqa': 'image=photo,answers=label', 'captioning': 'image=photo'}
    """
    pairs: dict[str, list[str]] = {label: [] for label in labels}
    for pair in filter(None, (pair.strip() for pair in text.split(","))):
        field, equals, column = pair.partition("=")
        label, dot, name = field.rpartition(".")
        if dot and _label(label) in pairs:
            pairs[_label(label)].append(f"{name}{equals}{column}")
        else:
            for own in pairs.values():
                own.append(pair)
    return {label: ",".join(own) for label, own in pairs.items()}


def _named(option: str, text: str, labels: Sequence[str], example: str) -> dict[str, str] | None:
    """The values of LABEL=VALUE,...; None for a text of another form.

    A piece without a label continues the value before it.
    """
    values: dict[str, str] = {}
    last = ""
    for piece in (piece.strip() for piece in text.split(",")):
        label, equals, value = piece.partition("=")
        if equals and _label(label) in labels:
            if (last := _label(label)) in values:
                raise InputError(f"{option}: {label} is given twice; give it once")
            values[last] = value
        elif last:
            values[last] += f",{piece}"
        else:
            return None
    if missing := [label for label in labels if label not in values]:
        raise InputError(
            f"{option}: {text!r} has no value for {', '.join(missing)}; write "
            f"{','.join(f'{label}={example}' for label in labels)}"
        )
    return {label: values[label] for label in labels}


def _exists(text: str) -> bool:
    """Whether a file or folder has this name, which may contain a comma."""
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False
