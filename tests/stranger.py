"""A third-party distribution, written to a folder: evaluators and a data set of new tasks."""

import importlib
import sys

from mmq.contracts import registry

METADATA = "Metadata-Version: 2.1\nName: stranger\nVersion: 1.2\n"
ENTRY_POINTS = """
[mmq.evaluators]
docvqa = stranger_plugins:DocVqa
compare = stranger_plugins:Compare
[mmq.datasets]
pairs = stranger_plugins:Pairs
"""
CODE = '''
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmq.contracts import Dataset, FileImage, QuestionEvaluator, QuestionSample, Splits
from mmq.evaluation.mean_scorer import MeanScorer


def distance(a: str, b: str) -> int:
    """Levenshtein's distance."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def anls(sample: QuestionSample, output: str) -> float:
    """Normalized Levenshtein similarity to the nearest answer; 0 below one half."""
    output = output.lower()
    pairs = [(output, answer.lower()) for answer in sample.answers]
    best = max(1 - distance(a, b) / max(len(a), len(b), 1) for a, b in pairs)
    return best if best >= 0.5 else 0.0


@dataclass(frozen=True)
class DocVqa(QuestionEvaluator):
    """ANLS of short answers."""

    task = "docvqa"
    samples_of = "vqa"
    bounds = (0, 1)

    def scorer(self, samples):
        return MeanScorer("docvqa/anls", anls, self.bounds)


@dataclass(frozen=True)
class Compare(DocVqa):
    """The same about several pictures."""

    task = "compare"
    samples_of = ""

    def scorer(self, samples):
        return MeanScorer("compare/anls", anls, self.bounds)


class Pairs(Dataset):
    """Questions about two pictures each."""

    tasks = ("compare",)
    layout = "FOLDER/1.png, 2.png, ..."
    needs = ("1.png", "2.png")

    def splits(self, root: Path) -> Splits:
        return Splits("all")

    def read(self, root: Path, split: str) -> Iterator[QuestionSample]:
        paths = sorted(root.glob("*.png"), key=lambda path: int(path.stem))
        for first, second in zip(paths, paths[1:]):
            images = (FileImage(first), FileImage(second))
            name = f"{first.stem}+{second.stem}"
            yield QuestionSample(name, name, images, "same color?", ("yes", "no"), "yes/no")
'''


def install(folder, monkeypatch):
    """Put the distribution on the import path, as pip would, for one test."""
    info = folder / "stranger-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "stranger_plugins.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    registry.refresh()
    sys.modules.pop("stranger_plugins", None)
    return folder
