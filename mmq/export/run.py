"""Write a planned export to a folder that appears when it is complete."""

import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmq.contracts import options as plugin_options
from mmq.contracts.metric import Metric
from mmq.contracts.target import ExportedLayer, ExportReport
from mmq.errors import InputError
from mmq.export.card import model_card
from mmq.export.facts import CARD, FACTS, PARTIAL, UNVERIFIED, file_sizes, read_facts, write_facts
from mmq.export.layers import ModelLayers
from mmq.export.plan import ExportPlan
from mmq.export.verify import Proof, UnverifiedError
from mmq.system.atomic import sync
from mmq.system.disk import check_writable, free, free_text, in_mib, naming
from mmq.system.progress import progress_bar

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Written:
    """A complete folder, before it gets its final name."""

    folder: Path
    report: ExportReport


Prove = Callable[[Written], Proof]


def check_output(out: Path) -> None:
    """InputError for an output folder that exists, or whose parent is not writable."""
    if os.path.lexists(out):
        raise InputError(
            f"out: {out} exists; remove it, or give another folder. An export never writes into "
            f"an existing folder"
        )
    check_writable(out.absolute().parent)


def export_model(
    plan: ExportPlan,
    layers: ModelLayers,
    out: Path,
    prove: Prove | None = None,
    scores: Mapping[str, Metric] | None = None,
    quiet: bool = False,
    trial: str = "",
) -> tuple[ExportReport, Proof | None]:
    """Write a planned export to `out`.partial, verify it, and rename it to `out`.

    The same export resumes there after a kill. prove: verifies the written folder; if a proof
    fails, the folder is renamed to `out`.unverified, and UnverifiedError is raised. scores: the
    trial's, for the model card. trial: the id of its run.
    """
    check_output(out)
    with _partial_folder(plan, out, trial) as partial:
        written = _write(plan, layers, partial, quiet)
        proof = None if prove is None else prove(written)
        card = model_card(plan, written.report, proof, partial, out, scores)
        with naming(partial / CARD):
            (partial / CARD).write_text(card)
        failed = () if proof is None else proof.failures
        name = out.with_name(f"{out.name}{UNVERIFIED}") if failed else out
        _put(partial, name)
    if failed:
        raise UnverifiedError(f"{'; '.join(failed)}. The folder is {name}")
    return written.report, proof


def _write(plan: ExportPlan, layers: ModelLayers, folder: Path, quiet: bool) -> Written:
    bar: Iterable[ExportedLayer] = progress_bar(
        layers, desc=f"export {plan.target_name}", unit="layer", leave=False, quiet=quiet
    )
    return Written(folder, plan.target.export(plan.source, bar, folder))


@contextmanager
def _partial_folder(plan: ExportPlan, out: Path, trial: str = "") -> Iterator[Path]:
    """The folder to write into, locked: a new one, or that of the same export, killed earlier."""
    partial = out.with_name(f"{out.name}{PARTIAL}")
    if partial.is_dir() and read_facts(partial).get("key") != plan.key:
        _remove_other(partial)
    needed = plan.promised_bytes - sum(file_sizes(partial).values() if partial.is_dir() else ())
    if free(out.absolute().parent) < needed:
        raise InputError(
            f"out: {out} will take {in_mib(plan.promised_bytes)}, and its disk has "
            f"{free_text(out.absolute().parent)}; free some space, or give a folder elsewhere"
        )
    with naming(partial):
        partial.mkdir(exist_ok=True)
    lock = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"out: another process is exporting to {out}; wait for it, or give another folder"
            ) from error
        if read_facts(partial):
            log.warning("Resuming an unfinished export in %s", partial)
        write_facts(partial, {**_facts(plan), "trial": trial})
        yield partial
    finally:
        os.close(lock)


def _remove_other(partial: Path) -> None:
    """Remove what another export left; InputError for a folder that mmq did not write."""
    if any(partial.iterdir()) and not (partial / FACTS).exists():
        raise InputError(
            f"out: {partial} exists and was not written by mmq; move it, or give another folder"
        )
    log.warning("Removing %s: it is from another unfinished export", partial)
    shutil.rmtree(partial)


def _facts(plan: ExportPlan) -> dict[str, object]:
    eval_spec = plan.eval_spec
    return {
        "key": plan.key,
        "target": plan.target_name,
        "target_options": plugin_options.values(plan.target),
        "model": eval_spec.model,
        "model_fingerprint": eval_spec.model_fingerprint,
        "dtype": eval_spec.dtype,
        "allocation": plan.allocation.as_dict(),
        "quantizer": eval_spec.quantizer,
        "quantizer_options": dict(eval_spec.quantizer_options),
        "task": eval_spec.served.evaluator,
        "evaluator_options": dict(eval_spec.served.evaluator_options),
        "prompt": eval_spec.served.rendered_prompt,
        "bytes": plan.promised_bytes,
    }


def _put(partial: Path, name: Path) -> None:
    """Rename the folder; an unverified one replaces an older unverified one."""
    if name.name.endswith(UNVERIFIED) and name.is_dir():
        shutil.rmtree(name)
    with naming(name):
        partial.rename(name)
        sync(name.absolute().parent)
