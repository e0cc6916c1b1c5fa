"""Names of studies: one rule for all commands and for generated names."""

import pytest
from click.testing import CliRunner

from mmq.cli.import_results import import_results
from mmq.errors import InputError
from mmq.studies.names import LONGEST_NAME, check_name, safe_name

GOOD = ["", "a", "My_study-2.1", "_x", "9", "a" * LONGEST_NAME, "blip2-opt-2.7b-vqa"]
BAD = [
    ".", "..", "...", ".hidden", "-x", "--study", "a.", "a/b", "../a", "/a", "a\\b", "a b", "a\n",
    "a'", "a`", "a\0", "größe", "ｆull", "а", "a\u200b", "a" * (LONGEST_NAME + 1), "a" * 300,
    "a:b", "a%2fb", "~", "$HOME", " ",
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_plain_name_is_valid(name):
    check_name(name)


@pytest.mark.parametrize("name", BAD)
def test_names_invalid_in_folders_or_filters_are_refused(name):
    with pytest.raises(InputError, match=r"is not a valid study name; use up to 100 of") as caught:
        check_name(name)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", BAD)
def test_generated_names_follow_the_rule(text):
    check_name(safe_name(text))
    assert safe_name(text)


def test_long_names_that_differ_at_their_end_stay_different():
    assert safe_name("a" * 300 + "b") != safe_name("a" * 300 + "c")


def test_an_import_follows_the_rule_too(tmp_path):
    (tmp_path / "a.csv").write_text("vit_bits,score\n4,1\n")
    result = CliRunner().invoke(import_results, [str(tmp_path / "a.csv"), "--study", ".."])
    assert isinstance(result.exception, InputError)
