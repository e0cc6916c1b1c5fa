"""`mmq import-results`: a table of published results becomes a study like any other."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from mmq.analysis.fronts import Point
from mmq.analysis.results_file import ResultTable, parse_pairs, parse_sizes, read_results
from mmq.cli.command import command
from mmq.cli.options import no_leftovers, options_from
from mmq.cli.places import print_how_to_browse
from mmq.config import EXPERIMENT_HELP, option
from mmq.errors import InputError
from mmq.studies.front import Results, description, log_front
from mmq.studies.names import check_name, safe_name
from mmq.studies.options import FileOptions


@dataclass(frozen=True, slots=True)
class ImportOptions(FileOptions):
    """A table of results, their origin, and the study to import them into."""

    scores: str = option("", "Columns of further scores (e.g. meteor,rouge).")
    bpw: str = option("", "Column of the bits per weight; empty: bpw.")
    sizes: str = option(
        "", "Numbers of parameters to compute bpw from (e.g. vit=984e6,llm=2516e6,all=3744e6)."
    )
    model: str = option("", "Name of the model (e.g. blip2-opt-2.7b).")
    task: str = option("", "Name of the task (e.g. captioning).")
    data: str = option("", "Name of the data (e.g. coco).")
    quantizer: str = option("", "Name of the quantizer (e.g. gptq).")
    study: str = option("", "Name of the study; empty: derived from the other names and the file.")
    skip_bad_rows: bool = option(False, "Import the valid rows if some rows are invalid.")
    experiment: str = option("", EXPERIMENT_HELP)


def read_file(options: FileOptions, path: str, **more: object) -> ResultTable:
    """The table that is given as an argument or with --file."""
    name = path or options.file
    if not name:
        raise InputError("file: no file is given; write `mmq import-results FILE`")
    bits = parse_pairs("bits-columns", options.bits_columns)
    table: ResultTable = read_results(Path(name), bits, options.score, **more)  # type: ignore[arg-type]
    return table


@command("import-results", "mmq import-results published.csv --score cider --study published")
@click.argument("path", metavar="FILE", default="")
@options_from(ImportOptions)
@click.pass_context
def import_results(
    context: click.Context, options: ImportOptions, plugin_options: Mapping[str, str], path: str
) -> None:
    """Import the configurations and scores in FILE as a study.

    Importing the same rows again adds nothing. 16 bits are unquantized weights.
    """
    no_leftovers(context)
    check_name(options.study)
    table = read_file(
        options,
        path,
        scores=[name.strip() for name in options.scores.split(",") if name.strip()],
        bpw=options.bpw,
        sizes=parse_sizes(options.sizes),
    )
    if table.problems and (not options.skip_bad_rows or not table.rows):
        hint = "fix them, or import the others with --skip-bad-rows"
        raise InputError(
            f"{len(table.problems)} invalid rows, nothing was imported; {hint}:\n"
            f"{table.problem_text}"
        )
    _import(options, table, Path(path or options.file))


def _import(options: ImportOptions, table: ResultTable, file: Path) -> None:
    from mmq.tracking.imports import content_key, log_rows, open_import, study_with

    facts = {
        name: value
        for name, value in {
            "model.name": options.model,
            "evaluator.name": options.task,
            "data.name": options.data,
            "quantizer.name": options.quantizer,
            "score.name": table.columns.score,
        }.items()
        if value
    }
    study = _study_name(options, file)
    if not options.study:  # the same rows under another file name belong to the same study
        study = study_with(options.experiment, content_key(table, facts)) or study
    with open_import(options.experiment, study, facts) as run:
        imported = log_rows(run, table, facts)
        run.parts = table.parts
        points = [
            Point(str(row.allocation), row.metrics["bpw"], row.metrics["score"], run_id=run_id)
            for row, run_id in imported.rows
            if "bpw" in row.metrics
        ]
        summary = _summary(table, imported.new, imported.duplicates)
        run.save_view(points, table.columns.score)
        run.mark_front(points, drops=False)
        if points:
            results = Results(study, table.columns.score, points, lambda _: None, [])
            log_front(run, results)
            headline = description(results)
        else:
            headline = f"{len(imported.rows)} configurations of unknown size (bpw)"
        run.describe(f"{headline}\n\n{summary}")
    if table.problems:
        click.echo(f"{len(table.problems)} invalid rows skipped:\n{table.problem_text}")
    click.echo(summary)
    click.echo(f"Study:     {study}")
    print_how_to_browse()
    click.echo(f"Open:      {run.link()}")


def _study_name(options: ImportOptions, file: Path) -> str:
    names = (options.model.rstrip("/").split("/")[-1], options.task, options.quantizer, file.stem)
    return options.study or safe_name("-".join(name for name in names if name))


def _summary(table: ResultTable, new: int, duplicates: int) -> str:
    """Counts of imported, duplicate and skipped rows."""
    texts = [f"{new} configurations imported"]
    if duplicates:
        texts.append(f"{duplicates} were imported before")
    if repeated := len(table.rows) - new - duplicates:
        texts.append(f"{repeated} rows are exact repeats")
    allocations = {str(row.allocation) for row in table.rows}
    if other := new + duplicates - len(allocations):
        texts.append(
            f"{other} rows give another score for a configuration (analyze averages them)"
        )
    if table.unread:
        texts.append(f"columns not imported: {', '.join(table.unread)}")
    return "; ".join(texts)
