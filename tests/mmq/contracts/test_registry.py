import sys
from importlib.metadata import distributions

import pytest

from mmq.contracts import registry
from mmq.errors import InputError


def add_distribution(folder, name, entry_points):
    """A distribution's metadata on disk, as an installer leaves it."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    registry.refresh()
    yield tmp_path
    registry.refresh()


def test_built_in_plugins_are_found_by_their_entry_points():
    assert [p.name for p in registry.installed("quantizer")] == [
        "auto-gptq",
        "autoawq",
        "awq",
        "gptq",
        "rtn",
        "uniform",
    ]
    assert {p.distribution for p in registry.installed("evaluator")} == {"mmq"}


def test_unknown_quantizer_lists_near_names():
    with pytest.raises(
        InputError,
        match=r"Did you mean 'rtn'\? Available: auto-gptq, autoawq, awq, gptq, rtn, uniform",
    ):
        registry.load("quantizer", "rtm")


def test_listing_imports_nothing(site):
    add_distribution(site, "lazy", "[mmq.quantizers]\nlazy = lazy_module_that_is_not_there:X\n")
    assert "lazy" in [p.name for p in registry.installed("quantizer")]
    with pytest.raises(InputError, match="ModuleNotFoundError.*pip install 'lazy|install it"):
        registry.load("quantizer", "lazy")


def test_a_missing_package_names_the_extra_to_install(site):
    add_distribution(
        site, "fancy", "[mmq.quantizers]\nfancy = module_that_is_not_there:X [cuda]\n"
    )
    with pytest.raises(InputError, match=r"pip install 'fancy\[cuda\]'"):
        registry.load("quantizer", "fancy")


def test_a_plugin_that_fails_while_it_is_imported_is_an_input_error(site):
    add_distribution(site, "broken", "[mmq.quantizers]\nbroken = broken_plugin:X\n")
    (site / "broken_plugin.py").write_text("raise RuntimeError('boom')")
    with pytest.raises(InputError, match="RuntimeError: boom"):
        registry.load("quantizer", "broken")


def test_two_distributions_with_one_name_are_both_named(site):
    add_distribution(site, "rival", "[mmq.quantizers]\nrtn = rival_module:Rtn\n")
    with pytest.raises(InputError, match=r"'rtn': (rival and mmq|mmq and rival)"):
        registry.load("quantizer", "uniform")


def test_mmq_is_one_distribution():
    assert [d.name for d in distributions(path=sys.path) if d.name == "mmq"] == ["mmq"]
