"""`mmq analyze`: how much each part matters for the score, and how sure that is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from mmq.analysis.fronts import Point
from mmq.analysis.importance import DEFAULTS, Settings
from mmq.analysis.importance_plots import analysis_figures
from mmq.analysis.report import analyze as run_analysis
from mmq.analysis.report import table_rows
from mmq.analysis.results_file import parse_pairs, read_results
from mmq.analysis.table import Table, make_table
from mmq.analysis.tables import aligned, markdown
from mmq.analysis.tradeoffs import fronts_figure
from mmq.cli.analysis_text import text
from mmq.cli.import_results import FileOptions
from mmq.cli.options import no_leftovers, options_from
from mmq.cli.places import print_how_to_browse
from mmq.config import EXPERIMENT_HELP, option
from mmq.errors import InputError
from mmq.studies.figures import path_to_write, save_figure


@dataclass(frozen=True, slots=True)
class AnalyzeOptions(FileOptions):
    """Which results to analyse, and how."""

    file: str = option("", "CSV or JSON files to analyse instead of studies, separated by commas.")
    score: str = option("", "Metric, or the files' column, of the score; score if empty.")
    study: str = option("", "Studies, separated by commas; all of the experiment if empty.")
    tag: str = option("", "Only trials with this tag, like mmq.eval_spec=1a2b.")
    filter: str = option("", "Only trials that an MLflow filter finds.")
    samples: bool = option(True, "Resample the evaluation's pictures, too, where they are known.")
    trees: int = option(DEFAULTS.trees, "Trees of a forest.")
    bootstrap: int = option(DEFAULTS.bootstrap, "Resamples for the intervals.")
    repeats: int = option(DEFAULTS.repeats, "Permutations of every part.")
    seed: int = option(DEFAULTS.seed, "Seed of everything random.")
    jobs: int = option(DEFAULTS.jobs, "Processes; 0 for one a core.")
    report: str = option("", "Markdown file to write, its figures beside it.")
    experiment: str = option("", EXPERIMENT_HELP)


@click.command("analyze")
@options_from(AnalyzeOptions)
@click.pass_context
def analyze(context: click.Context, chosen: AnalyzeOptions, extra: Mapping[str, str]) -> None:
    """Rank the parts of a model by what their bits matter for the score, with intervals.

    Reads the finished trials of studies in MLflow, or files. Trials of several questions (other
    quantizers, tasks, models) are compared on the configurations that all of them share. Logs an
    MLflow run with the findings.
    """
    from mmq.tracking import plain_run

    no_leftovers(context)
    report = path_to_write("report", chosen.report, ".md")
    settings = Settings(chosen.trees, chosen.bootstrap, chosen.repeats, chosen.seed, chosen.jobs)
    if chosen.file:
        tables, links, fronts = _from_files(chosen), dict[str, str](), dict[str, list[Point]]()
    else:
        tables, links, fronts = _from_studies(chosen)
    _check(tables)
    params = {
        f"analysis.{name}": getattr(chosen, name)
        for name in ("study", "tag", "filter", "score", "samples", "trees", "bootstrap", "repeats",
                     "seed")
    }  # fmt: skip
    params["analysis.file"] = ",".join(Path(name).name for name in chosen.file.split(","))
    title = f"analysis of {', '.join(table.name for table in tables)}"[:250]
    with plain_run(chosen.experiment, title, params, kind="analysis") as run:
        found = run_analysis(tables, settings)
        run.log_tables({f"{name}.json": rows for name, rows in table_rows(found).items()})
        linked = "\n".join(f"- [{study}]({link})" for study, link in links.items())
        used = f"\n\nStudies:\n\n{linked}" if linked else ""
        run.describe(text(found, markdown) + used)
        figures = analysis_figures(found)
        if fronts:
            title = "score against size" if len(fronts) == 1 else "the fronts of each"
            figures["fronts"] = fronts_figure(fronts, chosen.score or "score", title)
        for name, figure in figures.items():
            save_figure(run, figure, f"{name}.png", None)
        run.log(metrics=_metrics(found), tags={"mmq.studies": ", ".join(links)} if links else None)
    if report is not None:
        _write_report(report, text(found, markdown), figures)
    click.echo(f"\n{text(found, aligned)}\n")
    print_how_to_browse()
    click.echo(f"Open:      {run.run_link()}")


def _write_report(path: Path, said: str, figures: Mapping[str, Any]) -> None:
    """The findings as Markdown, with the figures beside it."""
    finding, _, rest = said.partition("\n\n")
    pictures = []
    for name, figure in figures.items():
        file = path.with_name(f"{path.stem}-{name}.png")
        figure.savefig(file)
        pictures.append(f"![{name.replace('-', ' ')}]({file.name})")
    path.write_text("\n\n".join([f"# {finding}", *pictures, rest]).rstrip() + "\n")


def _metrics(found: Any) -> dict[str, float]:
    """The few numbers by which analyses are sorted."""
    first = found.rankings["score"][0]
    metrics = {"configurations": float(sum(table.n for table in found.tables))}
    if first.forest is not None and first.linear is not None:
        metrics |= {"r2_forest": first.forest.value, "r2_linear": first.linear.value}
    return {name: round(value, 6) for name, value in metrics.items()}


def _check(tables: Sequence[Table]) -> None:
    """InputError for what cannot be analysed at all."""
    for table in tables:
        if table.n < 2:
            raise InputError(
                f"{table.name}: one configuration only; an analysis needs several of them"
            )
    common = set.intersection(*(set(table.parts) for table in tables))
    if not common:
        names = "; ".join(f"{table.name}: {', '.join(table.parts)}" for table in tables)
        raise InputError(f"the studies have no part in common, analyse them apart ({names})")


def _from_files(chosen: AnalyzeOptions) -> list[Table]:
    import pandas

    if chosen.study or chosen.tag or chosen.filter:
        raise InputError("file: give files, or study, tag and filter, not both")
    bits = parse_pairs("bits-columns", chosen.bits_columns)
    tables = []
    for name in (part.strip() for part in chosen.file.split(",") if part.strip()):
        found = read_results(Path(name), bits, chosen.score)
        if not found.rows:
            raise InputError(f"{name}: all of its rows are bad:\n{found.problem_text}")
        rows = [{**r.allocation.as_dict(), "score": r.metrics["score"]} for r in found.rows]
        columns = {part: part for part in found.parts}
        table = make_table(pandas.DataFrame(rows), columns, name=Path(name).stem)
        if found.problems:
            note = f"{len(found.problems)} bad rows left out:\n{found.problem_text}"
            table = table.noting(note)
        tables.append(table)
    return tables


def _from_studies(
    chosen: AnalyzeOptions,
) -> tuple[list[Table], dict[str, str], dict[str, list[Point]]]:
    """Tables, the studies' links, and the trials whose size is known, by table."""
    import pandas

    from mmq.tracking.queries import check_quotes, find_trials
    from mmq.tracking.sample_scores import read_samples

    studies = [name.strip() for name in chosen.study.split(",") if name.strip()]
    clauses = [
        f"tags.`{check_quotes(key)}` = '{check_quotes(value)}'"
        for key, value in parse_pairs("tag", chosen.tag).items()
    ]
    query = " and ".join([*clauses, *([chosen.filter] if chosen.filter else [])])
    score = chosen.score or "score"
    answers, links = find_trials(chosen.experiment, studies, query, score)
    if chosen.samples:
        read_samples(answers, score)
    tables = []
    for each in answers:
        parts, rows = each.rows()
        values = [each.samples[trial.run_id] for trial in each.trials] if each.samples else None
        columns = {part: part for part in parts}
        frame = pandas.DataFrame(rows)
        table = make_table(frame, columns, name=each.name, samples=values, pictures=each.pictures)
        tables.append(table.noting(*each.notes))
    fronts = {each.name: each.points(score) for each in answers}
    known = {name: points for name, points in fronts.items() if points}
    return sorted(tables, key=lambda table: -table.n), links, known
