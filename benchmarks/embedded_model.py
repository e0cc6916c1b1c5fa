"""Scores of the embedded models, with and without the right pictures, and by bits.

    python benchmarks/embedded_model.py [--limit N] [--model NAME ...] [--markdown FILE]

Prints scores with 95% intervals on held-out scenes; the same with every picture replaced by
another one (the image-blind baseline); scores on scenes with and without a held-out (shape,
colour) pair; the effect of outlier channels on the weights; and the score per quantizer, component
and width.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mmq.allocation.allocation import BitAllocation
from mmq.artifacts.store import Store
from mmq.config import EvalOptions
from mmq.contracts import Metric
from mmq.evaluation.generating import evaluate
from mmq.prepare import prepare
from mmq.record import TrialSpec
from mmq.trial import run_trial

WIDTHS = (8, 6, 5, 4, 3, 2)
TASKS = {
    "embedded-blip2": ("vqa", "gqa", "captioning"),
    "embedded-llava": ("vqa", "gqa"),
    "embedded-retrieval": ("retrieval",),
}


def silent(items: Iterable[Any], description: str) -> Iterable[Any]:
    return items


def rotated(samples: Sequence[Any]) -> list[Any]:
    """Every sample with the picture of another image, half the set away."""
    images = list(dict.fromkeys(s.image for s in samples))
    other = dict(zip(images, images[len(images) // 2 :] + images[: len(images) // 2], strict=True))
    return [replace(s, images=(other[s.image],)) for s in samples]


def text(metric: Metric) -> str:
    if metric.low is None or metric.high is None:
        return f"{metric.value:.3g}"
    return f"{metric.value:.3g} ({metric.low:.3g} to {metric.high:.3g})"


def abilities(name: str, limit: int) -> list[str]:
    """Right and wrong pictures, trained and held-out pairs, every task of a model."""
    lines = ["| task | metric | right pictures | wrong pictures |", "|---|---|---|---|"]
    for task in TASKS[name]:
        options = EvalOptions(model=name, task=task, limit=str(limit))
        prepared = prepare(options, {}, lambda parts: [])
        model = prepared.load()
        right = evaluate(prepared.task, model, silent)
        rotation = replace(prepared.task, samples=rotated(prepared.samples))
        blind = evaluate(rotation, model, silent)
        for metric_name, metric in right.metrics.items():
            cells = f"{text(metric)} | {text(blind.metrics[metric_name])}"
            lines.append(f"| {task} | {metric_name} | {cells} |")
        prepared.task.close()
        if task == "retrieval":
            continue
        values = np.asarray(right.per_sample[right.primary])
        held = np.array([int(s.image_id.lstrip("n")) % 2 == 0 for s in prepared.samples])
        lines.append(
            f"| {task} | {right.primary}, scenes with a held-out pair / all others "
            f"| {values[held].mean():.3g} / {values[~held].mean():.3g} | |"
        )
    return lines


def response(model_name: str, limit: int, folder: Path) -> list[str]:
    """The score of the model's first task per quantizer, quantized components and width."""
    lines = [
        "| quantizer | quantized | " + " | ".join(map(str, WIDTHS)) + " |",
        "|---" * (len(WIDTHS) + 2) + "|",
    ]
    choices: list[tuple[str, dict[str, str]]] = [
        ("uniform", {}),
        ("rtn", {}),
        ("rtn", {"group-size": "64"}),
    ]
    for name, extra in choices:
        options = EvalOptions(
            model=model_name, task=TASKS[model_name][0], quantizer=name, limit=str(limit)
        )
        prepared = prepare(options, extra, lambda parts: [])
        model, spec = prepared.load(), prepared.eval_spec
        parts = list(model.components)
        for quantized in [[part] for part in parts] + [parts]:
            cells = []
            for bits in tqdm(WIDTHS, desc=f"{name} {extra} {quantized}", leave=False):
                allocation = BitAllocation.uniform(quantized, bits).over(parts)
                result = run_trial(
                    TrialSpec(spec, allocation),
                    model,
                    prepared.artifacts(Store(folder), quiet=True),
                    prepared.task,
                    quiet=True,
                )
                cells.append(f"{result.record.score.value:.1f}")
            label = name + "".join(f", {k} {v}" for k, v in extra.items())
            lines.append(f"| {label} | {'+'.join(quantized)} | {' | '.join(cells)} |")
    return lines


def weights(model_name: str) -> list[str]:
    """How much of a layer's range holds 99.9% of its other weights, where it has outliers."""
    from mmq_plugins.embedded.outliers import bulk_range

    from mmq.models.loading import load_model

    lines = [
        "| component | layers | with outliers | range of the other weights |",
        "|---|---|---|---|",
    ]
    for name, component in load_model(model_name).components.items():
        ranges = [bulk_range(layer.module.weight) for layer in component.layers]
        defined = [r for r in ranges if r is not None]
        lines.append(
            f"| {name} | {len(ranges)} | {len(defined)} | {np.median(defined):.0%} (median) |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--model", action="append", choices=list(TASKS))
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--store", type=Path, default=Path(".mmq/store"))
    options = parser.parse_args()
    report = []
    for name in options.model or TASKS:
        sections = [
            ("scores", abilities(name, options.limit)),
            ("weights", weights(name)),
            (
                f"{TASKS[name][0]} score against bits",
                response(name, options.limit, options.store),
            ),
        ]
        for title, lines in sections:
            report.append("\n".join([f"### {name}: {title}", "", *lines]))
            print(report[-1] + "\n", flush=True)
    if options.markdown:
        options.markdown.write_text("\n\n".join(report) + "\n")


if __name__ == "__main__":
    main()
