"""The commands of docs/data.md, in a folder with pictures and two sheets."""

import json
import re
import shlex
from pathlib import Path

from mlflow import MlflowClient

from mmq.cli import main
from mmq.data.source import find_source

DOCS = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", DOCS, re.DOTALL)
    for line in block.splitlines()
]
HEADER = re.search(r"```text\nphotos\.csv\n(.*?)\n", DOCS)[1]


def test_a_newcomers_pictures_and_sheet_are_scored_and_searched_in_one_command(
    store_uri, tmp_path, capsys
):
    scenes = find_source("vqa", "scenes").samples()[:6]  # whose answers the model knows
    rows = [f"{s.image.name};{s.question};{s.answers[0]}" for s in scenes]
    for name, header in (("photos.csv", HEADER), ("other.csv", "bild;was;loesung")):
        (tmp_path / name).write_text("\n".join([header, *rows]) + "\n")
    assert len(COMMANDS) == 3
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        assert program == "mmq"
        main([*arguments, "--num-beams", "1"])
    (experiment,) = MlflowClient(store_uri).search_experiments(filter_string="name = 'mmq'")
    runs = MlflowClient(store_uri).search_runs([experiment.experiment_id])
    scores = [run.data.metrics.get("short-answer/exact") for run in runs]
    assert len([score for score in scores if score is not None]) >= 3
    (other,) = (run for run in runs if "image=bild" in run.data.params.get("data.fields", ""))
    capsys.readouterr()
    main(["trial", "--run", other.info.run_id, "--bits", "8", "--json"])
    record = json.loads(capsys.readouterr().out)
    assert record["eval_spec"]["data_fingerprint"] == other.data.params["data.fingerprint"]
