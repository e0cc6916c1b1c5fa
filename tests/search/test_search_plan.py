"""The plan of a search, and what a dry run prints."""

import json

from mmq.cli import main

SEARCH = ["search", "--model", "embedded-llava", "--limit", "1", "--dry-run"]


def test_a_dry_run_prints_the_command_with_the_options_that_are_not_defaults(
    store_uri, capsys, monkeypatch
):
    monkeypatch.setattr("signal.signal", lambda *arguments: None)
    main([*SEARCH, "--bits", "4", "--study", "mine", "--json"])
    output = capsys.readouterr()
    (line,) = json.loads(output.out)["would_start"]
    assert line == "mmq search --model embedded-llava --limit 1 --bits 4 --study mine"
    assert "Plan: 1 trial of up to 1 sample;" in output.err
    assert "from 1 allocation of 4 bits over vit, llm" in output.err


def test_the_plan_repeats_the_bounds_in_words(store_uri, capsys, monkeypatch):
    monkeypatch.setattr("signal.signal", lambda *arguments: None)
    main([*SEARCH, "--max-drop", "0.01", "--max-bpw", "5", "--max-flips", "2%"])
    line = "for at most 5 bpw, a model within 0.01 of the score, with at most 2% flips"
    assert line in capsys.readouterr().err
