"""`mmq import-results`: a table of results of elsewhere becomes a study like any other."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from mmq.analysis.fronts import Point
from mmq.analysis.results_file import ResultTable, parse_pairs, parse_sizes, read_results
from mmq.cli.options import no_leftovers, options_from
from mmq.cli.places import print_how_to_browse
from mmq.config import EXPERIMENT_HELP, option
from mmq.errors import InputError
from mmq.studies.front import Results, description, log_front
from mmq.studies.names import check_name, safe_name


@dataclass(frozen=True, slots=True)
class FileOptions:
    """A table of results, and which of its columns holds what."""

    file: str = option("", "CSV or JSON file with a row a configuration.")
    bits_columns: str = option(
        "", "Columns of bits, like vit=vit_bits,llm=llm_bits; those named *_bits if empty."
    )
    score: str = option("", "Column of the score that counts; the one named score if empty.")


@dataclass(frozen=True, slots=True)
class ImportOptions(FileOptions):
    """The same, what the results are of, and where they go."""

    scores: str = option("", "Columns of further scores, like meteor,rouge.")
    bpw: str = option("", "Column of bits per weight; the one named bpw if empty.")
    sizes: str = option(
        "", "Parameters to compute bpw from, like vit=984e6,llm=2516e6,all=3744e6."
    )
    model: str = option("", "Name of the model that the results are of.")
    task: str = option("", "Name of the task.")
    data: str = option("", "Name of the data.")
    quantizer: str = option("", "Name of the quantizer.")
    study: str = option("", "Name of the study; made from the names and the file's if empty.")
    skip_bad_rows: bool = option(False, "Import the other rows where some are bad.")
    experiment: str = option("", EXPERIMENT_HELP)


def read_file(chosen: FileOptions, path: str, **more: object) -> ResultTable:
    """The table that a command was given, as argument or as --file."""
    name = path or chosen.file
    if not name:
        raise InputError("file: no file was given")
    bits = parse_pairs("bits-columns", chosen.bits_columns)
    found: ResultTable = read_results(Path(name), bits, chosen.score, **more)  # type: ignore[arg-type]
    return found


@click.command("import-results")
@click.argument("path", metavar="FILE", default="")
@options_from(ImportOptions)
@click.pass_context
def import_results(
    context: click.Context, chosen: ImportOptions, extra: Mapping[str, str], path: str
) -> None:
    """Make a study of the configurations and scores in FILE.

    Importing the same rows again adds nothing. Bits of 16 are untouched weights.
    """
    no_leftovers(context)
    check_name(chosen.study)
    table = read_file(
        chosen,
        path,
        scores=[name.strip() for name in chosen.scores.split(",") if name.strip()],
        bpw=chosen.bpw,
        sizes=parse_sizes(chosen.sizes),
    )
    if table.problems and (not chosen.skip_bad_rows or not table.rows):
        hint = "mend them, or import the rest with --skip-bad-rows"
        raise InputError(
            f"{len(table.problems)} bad rows, nothing was imported; {hint}:\n{table.problem_text}"
        )
    _import(chosen, table, Path(path or chosen.file))


def _import(chosen: ImportOptions, table: ResultTable, file: Path) -> None:
    from mmq.tracking.imports import content_key, log_rows, open_import, study_with

    facts = {
        name: value
        for name, value in {
            "model.name": chosen.model,
            "evaluator.name": chosen.task,
            "data.name": chosen.data,
            "quantizer.name": chosen.quantizer,
            "score.name": table.columns.score,
        }.items()
        if value
    }
    study = _study_name(chosen, file)
    if not chosen.study:  # the same rows in a file of another name are no other study
        study = study_with(chosen.experiment, content_key(table, facts)) or study
    with open_import(chosen.experiment, study, facts) as run:
        imported = log_rows(run, table, facts)
        run.save_view(table.parts, table.columns.score)
        points = [
            Point(str(row.allocation), row.metrics["bpw"], row.metrics["score"], run_id=run_id)
            for row, run_id in imported.rows
            if "bpw" in row.metrics
        ]
        said = _said(table, imported.new, imported.duplicates)
        if points:
            results = Results(study, table.columns.score, points, lambda _: None, [])
            log_front(run, results)
            said_first = description(results)
        else:
            said_first = f"{len(imported.rows)} configurations; their sizes (bpw) are not known"
        run.describe(f"{said_first}\n\n{said}")
    if table.problems:
        click.echo(f"{len(table.problems)} bad rows skipped:\n{table.problem_text}")
    click.echo(said)
    click.echo(f"Study:     {study}")
    print_how_to_browse()
    click.echo(f"Open:      {run.link()}")


def _study_name(chosen: ImportOptions, file: Path) -> str:
    names = (chosen.model.rstrip("/").split("/")[-1], chosen.task, chosen.quantizer, file.stem)
    return chosen.study or safe_name("-".join(name for name in names if name))


def _said(table: ResultTable, new: int, known: int) -> str:
    """What was imported, what was there already, what was left out."""
    texts = [f"{new} configurations imported"]
    if known:
        texts.append(f"{known} were there already")
    if repeated := len(table.rows) - new - known:
        texts.append(f"{repeated} rows repeat another one exactly")
    allocations = {str(row.allocation) for row in table.rows}
    if other := new + known - len(allocations):
        texts.append(
            f"{other} rows have another score for the same configuration (analyze averages them)"
        )
    if table.unread:
        texts.append(f"columns not imported: {', '.join(table.unread)}")
    return "; ".join(texts)
