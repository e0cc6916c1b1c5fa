"""The model card of an exported folder: bits, scores, size, and commands that run it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmq.contracts.metric import Metric
from mmq.contracts.target import ExportReport
from mmq.export.facts import file_sizes
from mmq.export.plan import ExportPlan, stored_bytes
from mmq.export.verify import Proof
from mmq.system.disk import MIB


def model_card(
    plan: ExportPlan,
    report: ExportReport,
    proof: Proof | None,
    folder: Path,
    out: Path,
    scores: Mapping[str, Metric] | None = None,
) -> str:
    """The text of README.md.

    folder: where the files are now. out: where they will be.
    """
    eval_spec = plan.eval_spec
    options = ", ".join(f"{k} {v}" for k, v in eval_spec.quantizer_options.items())
    head = ["---", f"base_model: {eval_spec.model}", "tags: [mmq, quantized]", "---"]
    title = f"# {Path(eval_spec.model).name}, {plan.allocation}"
    intro = (
        f"`{eval_spec.model}` quantized by mmq with `{eval_spec.quantizer}`"
        f"{f' ({options})' if options else ''}, exported for `{plan.target_name}`."
    )
    commands = [c.replace(str(folder), str(out.absolute())) for c in plan.target.commands(folder)]
    sections = [
        "\n".join(head), title, intro,
        "## Bits\n\n" + _bits(plan, report),
        "## Scores\n\n" + _scores(plan, proof, scores),
        "## Size\n\n" + _size(plan, folder),
        *([f"## Speed\n\n{proof.cost}."] if proof and proof.cost else []),
        "## Run it\n\n" + "\n\n".join(f"```bash\n{command}\n```" for command in commands),
        "## Proof\n\n" + _list(proof.lines() if proof else ["not verified (--no-verify)"]),
    ]  # fmt: skip
    if proof and proof.failures:
        sections[-1] += "\n\n**Failed:**\n\n" + _list(proof.failures)
    if report.notes:
        sections.append("## Notes\n\n" + _list(report.notes))
    return "\n\n".join(sections) + "\n"


def _bits(plan: ExportPlan, report: ExportReport) -> str:
    rows = []
    for name, component in plan.source.skeleton.components.items():
        kinds: dict[tuple[str, str], int] = {}
        for layer in component.layers:
            spec = plan.specs.get(layer.name)
            stored = report.stored_as.get(layer.name, "as in the source")
            key = str(spec or "16 bits, not quantized"), stored
            kinds[key] = kinds.get(key, 0) + 1
        rows += [(name, str(count), spec, stored) for (spec, stored), count in kinds.items()]
    return _table(("component", "layers", "quantized", "stored as"), rows)


def _scores(plan: ExportPlan, proof: Proof | None, scores: Mapping[str, Metric] | None) -> str:
    rows: list[Sequence[str]] = []
    if scores is not None:
        rows += [("trial", name, *_metric(metric)) for name, metric in scores.items()]
    for outputs in () if proof is None else proof.compared:
        beside = (
            ("exported, in the engine", outputs.engine),
            ("simulated", outputs.simulated),
            ("exported, gray pictures", outputs.blind),
        )
        rows += [(what, outputs.metric, *_metric(metric)) for what, metric in beside]
    if not rows:
        return "No scores: the trial has none, and outputs were not compared."
    eval_spec = plan.eval_spec
    about = f"Task `{eval_spec.task}` on `{eval_spec.data}` (data {eval_spec.data_fingerprint})."
    return f"{about}\n\n" + _table(("model", "metric", "score", "95% interval", "samples"), rows)


def _metric(metric: Metric) -> tuple[str, str, str]:
    interval = "" if metric.low is None else f"{metric.low:.4g} to {metric.high:.4g}"
    return f"{metric.value:.4g}", interval, str(metric.n)


def _size(plan: ExportPlan, folder: Path) -> str:
    source = sum(stored_bytes(tensor) for tensor in plan.checkpoint.stored.values())
    total = sum(file_sizes(folder).values())
    rows = [
        ("these files", f"{total:,}", f"{total / MIB:.1f}"),
        ("the source's weights", f"{source:,}", f"{source / MIB:.1f}"),
    ]
    return _table(("", "bytes", "MiB"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
