"""Versions decide whether two results are the same; comments never do.

Whoever edits a module that computes codes or scores is stopped by the first test here, until they
decide: the same results (`make identity`), or a new version.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import identity
import pytest
from mmq_plugins.quantizers.gptq import Gptq

from mmq.contracts import registry
from mmq.errors import InputError

ROOT = Path(__file__).parents[1]
TINY = ("--model", "embedded-llava", "--limit", "4", "--calibration-samples", "8")


@pytest.fixture(scope="module")
def now():
    return identity.computing()


def test_every_module_that_computes_is_as_recorded(now):
    texts = identity.differences(now, json.loads(identity.RECORDED.read_text()))
    assert not texts, "\n\n".join(texts)


def test_neighbours_of_plugins_and_rooms_are_covered(now):
    for name in (
        "mmq_plugins.quantizers.gptq", "mmq_plugins.quantizers.gptq_factor",
        "mmq_plugins.quantizers.awq_errors", "mmq_plugins.evaluators.vqa_answers",
        "mmq_plugins.evaluators.recall", "mmq_plugins.evaluators.caption_text",
        "mmq_plugins.quantizers.auto_gptq", "mmq_plugins.models.llava", "mmq.tensors.affine",
        "mmq.quantization.sequential", "mmq.models.stages", "mmq.models.transformers_family",
        "mmq.system.image_modes", "mmq.contracts.images", "mmq.data.draw",
        "mmq.evaluation.stats", "mmq.studies.sensitivity", "mmq.trial",
    ):  # fmt: skip
        assert name in now.modules
    assert now.owners["mmq_plugins.quantizers.awq_errors"] == [
        "Awq.version in mmq_plugins.quantizers.awq"
    ]


def edited(now, module, edit):
    """The hash of a module with an edit."""
    text = identity.source_of(module)
    changed = edit(text)
    assert changed != text
    return identity.hash_source(changed)


@pytest.mark.parametrize(
    ("module", "place"),
    [
        ("mmq_plugins.quantizers.awq_errors", "Awq.version in mmq_plugins.quantizers.awq"),
        ("mmq_plugins.evaluators.vqa_answers", "Vqa.version in mmq_plugins.evaluators.vqa"),
        ("mmq.tensors.affine", "VERSION in mmq/tensors/__init__.py"),
    ],
)
def test_an_edit_fails_the_test_with_instructions(now, module, place):
    recorded = now.as_json()
    more = edited(now, module, lambda text: text + "\n\ndef more() -> int:\n    return 1\n")
    changed = identity.Computing(now.modules | {module: more}, now.owners, now.versions)
    (text,) = identity.differences(changed, recorded)
    assert text.startswith(f"{module} is edited.")
    assert "same codes and scores? Then run `make identity`" in text
    assert f"raise {place}" in text or f"or {place}" in text


def test_comments_docstrings_and_error_messages_do_not_count_as_edits(now):
    code = (
        'def f(x):\n    """Old."""\n    if x < 0:\n        raise ValueError("old")\n    return x\n'
    )
    for old, new in {
        "Old.": "New.",
        '"old"': 'f"new {x}"',
        "return x\n": "return x  # new\n",
    }.items():
        assert identity.hash_source(code.replace(old, new)) == identity.hash_source(code)
    assert identity.hash_source(code.replace("x < 0", "x < 1")) != identity.hash_source(code)
    module = "mmq_plugins.quantizers.gptq"
    assert edited(now, module, lambda text: text + "\n# a comment\n") == now.modules[module]


def test_a_raised_version_requires_a_new_record_of_hashes(now):
    recorded = now.as_json() | {"versions": now.versions | {"quantizer gptq": 0}}
    assert identity.differences(now, recorded) == [
        "A version was raised, or a plugin is new. Run `make identity`."
    ]


def test_a_class_that_is_not_an_installed_plugin_has_no_identity():
    class Mine(Gptq):
        pass

    with pytest.raises(InputError, match=r"entry point of 'mmq\.quantizers'.*Installed: .*gptq"):
        registry.identity("quantizer", Mine)


def search(folder, plugins):
    """A tiny search with gptq in a fresh process, with these plugins; what it printed."""
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(plugins), str(ROOT), str(ROOT / "search")]),
        "MMQ_HOME": str(folder / "home"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
    }
    command = ["search", *TINY, "--quantizer", "gptq", "--bits", "4,16", "--n-trials", "2"]
    result = subprocess.run(
        [sys.executable, "-m", "mmq", *command],
        cwd=folder, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def test_a_comment_in_gptq_invalidates_no_block_record_or_study(store_uri, tmp_path):
    search(tmp_path, ROOT / "plugins")
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "home" / "store").glob("*.safetensors")}
    records = {p.name for p in (tmp_path / "home" / "records").iterdir()}
    plugins = tmp_path / "plugins" / "mmq_plugins"
    shutil.copytree(ROOT / "plugins" / "mmq_plugins", plugins, copy_function=os.symlink)
    path = plugins / "quantizers" / "gptq.py"
    text = path.read_text() + "\n# a comment\n"
    path.unlink()
    path.write_text(text)
    out = search(tmp_path, plugins.parent)
    assert "2 of 2 allocations are evaluated" in out
    assert files == {p: p.stat().st_mtime_ns for p in files}
    assert len(files) == len(list((tmp_path / "home" / "store").glob("*.safetensors"))) > 0
    assert records == {p.name for p in (tmp_path / "home" / "records").iterdir()}
