"""The unquantized model in an engine's format, to compare exported models with; written once."""

import logging
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmq.contracts import options as plugin_options
from mmq.contracts.target import Target
from mmq.errors import InputError
from mmq.export.facts import read_facts, write_facts
from mmq.export.measure import ExportedModel
from mmq.export.side_files import source_folder
from mmq.export.source_checkpoint import SourceCheckpoint
from mmq.export.targets import build_target
from mmq.models.loading import fingerprint, locate, read_config
from mmq.models.skeleton import skeleton
from mmq.system.disk import naming
from mmq.system.hashing import digest
from mmq.system.home import home

log = logging.getLogger(__name__)
FOLDER = "unquantized"  # subfolder of mmq's home


def unquantized(exported: ExportedModel) -> ExportedModel:
    """The unquantized model in the exported one's engine, in mmq's home.

    InputError where its source checkpoint is not on this machine or has changed.
    """
    facts = read_facts(exported.folder)
    source = _unchanged_source(facts)
    target = build_target(exported.target, exported.options)
    key = digest([
        exported.target, target.version, sorted(plugin_options.values(target).items()),
        facts["model_fingerprint"],
    ])  # fmt: skip
    folder = home() / FOLDER / key
    if not folder.is_dir():
        log.info("Writing the unquantized model for %s to %s", exported.target, folder)
        _write(target, source, facts, folder)
    return replace(exported, folder=folder)


def _unchanged_source(facts: Mapping[str, Any]) -> Path:
    model, expected = str(facts.get("model", "")), facts.get("model_fingerprint")
    checkpoint = locate(model)
    folder = source_folder(model)
    if fingerprint(checkpoint, read_config(checkpoint), str(facts["dtype"])) != expected:
        raise InputError(f"model: {model} changed since it was exported")
    return folder


def _write(target: Target, source: Path, facts: Mapping[str, Any], folder: Path) -> None:
    """Write the folder, which appears when it is complete."""
    outline = skeleton(str(source))
    checkpoint = SourceCheckpoint.open(source, outline)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with naming(folder), tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        partial = Path(scratch) / folder.name
        partial.mkdir()
        export_source = checkpoint.as_source(outline, str(facts["dtype"]))
        target.export_unquantized(export_source, partial)
        write_facts(partial, {**facts, "allocation": {}})
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # unless another process has written it meanwhile
                raise
            shutil.rmtree(partial)
