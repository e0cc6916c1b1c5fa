"""Regular expressions that match layers by their names in transformers 4, 5 and vLLM."""

import re
from collections.abc import Iterable, Mapping, Sequence


def list_patterns(paths: Iterable[str], stored: Mapping[str, str]) -> dict[str, str]:
    """For each list of blocks, by path, a regular expression that ends before the block's number.

    paths: of all lists in memory. stored: their paths in the checkpoint's files. Names differ in
    what precedes a list; the pattern uses the parts that are the same everywhere.
    """
    paths = list(paths)
    patterns: dict[str, str] = {}
    for path in paths:
        others = [stored.get(p, p) for p in paths if p != path] + [p for p in paths if p != path]
        patterns[path] = next(
            pattern
            for pattern in _candidates(path, stored.get(path, path))
            if not any(re.fullmatch(pattern, f"{other}.") for other in others)
        )
    return patterns


def _candidates(path: str, stored: str) -> Iterable[str]:
    """Patterns for a path, the shortest first."""
    own, other = path.split("."), stored.split(".")
    if len(own) > 1 and own[-2:] == other[-2:]:
        yield rf"(.*\.)?{own[-2]}\.{own[-1]}\."
    yield rf"(.*\.)?{own[-1]}\."
    for token in own[:-1]:
        if token in other:
            yield rf"(.*\.)?{token}\.(.*\.)?{own[-1]}\."
    yield "|".join(re.escape(f"{name}.") for name in dict.fromkeys((path, stored)))


def layer_patterns(layers: Sequence[str], lists: Mapping[str, str]) -> list[str]:
    """Patterns, `re:` in front, that match these layers of lists of blocks."""
    by_kind: dict[tuple[str, str], list[int]] = {}
    for name in layers:
        path = next(path for path in lists if name.startswith(f"{path}."))
        number, _, rest = name.removeprefix(f"{path}.").partition(".")
        by_kind.setdefault((path, rest), []).append(int(number))
    joined: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for (path, rest), numbers in by_kind.items():
        joined.setdefault((path, tuple(sorted(numbers))), []).append(rest)
    return [
        f"re:{lists[path]}{_any(map(str, numbers))}\\.{_any(map(re.escape, sorted(kinds)))}$"
        for (path, numbers), kinds in joined.items()
    ]


def _any(choices: Iterable[str]) -> str:
    choices = list(choices)
    return choices[0] if len(choices) == 1 else f"({'|'.join(choices)})"


def outside_pattern(name: str, stored: str) -> str:
    """A pattern for a layer outside all lists: the common end of its two names."""
    end: list[str] = []
    for own, other in zip(reversed(name.split(".")), reversed(stored.split(".")), strict=False):
        if own != other:
            break
        end.insert(0, own)
    return rf"re:(.*\.)?{re.escape('.'.join(end or name.split('.')[-1:]))}$"
