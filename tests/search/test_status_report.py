"""`mmq status` of studies that MLflow alone has."""

from pathlib import Path

import pytest

from mmq.cli import main


@pytest.mark.usefixtures("store_uri")
def test_the_status_of_an_imported_study_has_its_metric_and_a_link_that_opens(capsys):
    Path("results.csv").write_text("vit,llm,score\n4,4,80\n4,16,81\n16,4,82\n16,16,84\n")
    main(["import-results", "results.csv", "--study", "imported"])
    capsys.readouterr()
    main(["status", "imported"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Study imported: 4 allocations evaluated, according to MLflow"
    assert [line.split()[0] for line in lines[-3:]] == ["Saved", "Browse", "Run:"]
    assert lines[-1].split()[1].startswith("http://127.0.0.1:5000/#/experiments/")
