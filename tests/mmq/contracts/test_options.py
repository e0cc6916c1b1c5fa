from dataclasses import dataclass, field
from typing import Literal

import click
import pytest

from mmq.cli import main
from mmq.cli.options import leftovers, report_repeated
from mmq.contracts.options import build, distribute, field_types, values
from mmq.errors import InputError


@dataclass(frozen=True)
class Left:
    group_size: int = 64
    symmetric: bool = False
    damping: float = 0.01
    both: str = "x"
    _state: object = field(default=None, init=False)

    def __post_init__(self):
        if self.group_size < 0:
            raise ValueError("group_size: negative")


@dataclass
class Right:
    both: str = "y"
    num_beams: int | None = None


PLUGINS = {"quantizer": Left, "evaluator": Right}


def test_options_are_read_by_their_types():
    given = {"group_size": "32", "symmetric": "True", "damping": "0.5", "both": "z"}
    assert build(Left, given) == Left(32, True, 0.5, "z")
    assert build(Right, {"num_beams": "3"}).num_beams == 3


def test_state_is_not_an_option():
    assert list(field_types(Left)) == ["group_size", "symmetric", "damping", "both"]
    assert values(Right()) == {"both": "y", "num_beams": None}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("group_size", "many", "group_size: 'many' is not a whole number"),
        ("symmetric", "maybe", "symmetric: 'maybe' is not true or false"),
        ("damping", "low", "damping: 'low' is not a number"),
        ("group_size", "-1", "group_size: negative"),
    ],
)
def test_errors_report_the_given_value(name, value, message):
    with pytest.raises(InputError, match=message):
        build(Left, {name: value})


def test_leftover_options_go_to_the_plugin_that_has_them():
    by_plugin = distribute({"group-size": "32", "num_beams": "2"}, PLUGINS)
    assert by_plugin == {"quantizer": {"group_size": "32"}, "evaluator": {"num_beams": "2"}}


@dataclass
class Odd:
    needed: int
    mode: Literal["a", "b"] = "a"
    sizes: tuple[int, ...] = (1,)


def test_choices_are_checked_and_other_types_refused():
    assert build(Odd, {"needed": "1", "mode": "b"}).mode == "b"
    with pytest.raises(InputError, match=r"'c' is not one of \['a', 'b'\]"):
        build(Odd, {"needed": "1", "mode": "c"})
    with pytest.raises(InputError, match="cannot be given on the command line"):
        build(Odd, {"needed": "1", "sizes": "3"})


def test_an_option_without_a_default_is_required():
    with pytest.raises(InputError, match="needed"):
        build(Odd, {})


def test_unknown_option_lists_near_names():
    with pytest.raises(InputError, match="Unknown option 'groupsize'. Did you mean 'group-size'"):
        distribute({"groupsize": "32"}, PLUGINS)


def test_an_option_of_two_plugins_asks_for_the_full_name():
    with pytest.raises(InputError, match=r"quantizer\.both, evaluator\.both"):
        distribute({"both": "z"}, PLUGINS)
    assert distribute({"evaluator.both": "z"}, PLUGINS)["evaluator"] == {"both": "z"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--group-size", "64", "--group-size=32"],
        ["--group-size", "64", "--group_size", "32"],
        ["--group-size", "64", "--group-size", "64"],
    ],
)
def test_a_plugin_option_that_is_given_twice_is_refused(arguments):
    with pytest.raises(
        InputError, match=r"option --group.size is given twice, as '64' and '(32|64)'"
    ):
        leftovers(arguments)


def test_an_option_given_by_its_short_and_its_full_name_is_refused():
    with pytest.raises(InputError, match="'quantizer.damping' is given twice, for quantizer"):
        distribute({"damping": "4", "quantizer.damping": "8"}, PLUGINS)


@pytest.mark.parametrize(
    "arguments",
    [["--limit", "4", "--limit", "8"], ["--limit=4", "--allow-pickle", "--limit=8"]],
)
def test_an_option_of_a_command_that_is_given_twice_is_reported(arguments, caplog):
    with pytest.raises(SystemExit):
        main(["trial", *arguments, "--model", "nothing"])
    assert "option --limit is given twice: '4' is ignored, '8' is used" in caplog.text


def test_values_that_look_like_options_are_no_repetition(caplog):
    command = click.Command("c", params=[click.Option(["--a"]), click.Option(["--b"])])
    report_repeated(command, ["--a", "--b", "--b", "--a", "--more", "1", "--more", "2"])
    assert not caplog.text
