"""An analysis of logged studies or of files, logged as an MLflow run of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmq.analysis.fronts import Point
from mmq.analysis.importance_plots import analysis_figures
from mmq.analysis.measured import PREFIX
from mmq.analysis.report import Analysis, analyze, table_rows
from mmq.analysis.results_file import parse_pairs, read_results
from mmq.analysis.settings import Settings
from mmq.analysis.table import Table, make_table
from mmq.analysis.tables import markdown
from mmq.analysis.text import text
from mmq.analysis.tradeoffs import fronts_figure
from mmq.errors import InputError
from mmq.studies.figures import path_to_write, save_figure
from mmq.studies.measured_fronts import Layout, MeasuredFront, measured_fronts, named_figures
from mmq.studies.options import AnalyzeOptions
from mmq.system.progress import notify

if TYPE_CHECKING:
    from mmq.tracking.queries import StudyTrials


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What is analyzed. links: of studies by name. fronts: trials with a size, by table.

    subject: model, task, data and quantizer in words. score_name: the metric. measured: trials
    whose exported models were measured.
    """

    tables: Sequence[Table]
    subject: str = ""
    score_name: str = "score"
    links: Mapping[str, str] = field(default_factory=dict)
    fronts: Mapping[str, list[Point]] = field(default_factory=dict)
    measured: Sequence[MeasuredFront] = ()

    @property
    def title(self) -> str:
        """The first line of every figure."""
        return ", ".join(filter(None, (self.subject, f"metric: {self.score_name}")))


@dataclass(frozen=True, slots=True, eq=False)
class LoggedAnalysis:
    """An analysis with its figures by name, and its page in MLflow.

    measured: trials whose exported models were measured. score_name: the metric.
    """

    analysis: Analysis
    figures: Mapping[str, Any]
    url: str
    measured: Sequence[MeasuredFront] = ()
    score_name: str = "score"

    def text(self, layout: Layout) -> str:
        """The findings, then the measured trials; layout: aligned or markdown."""
        return "\n\n".join(
            [
                text(self.analysis, layout),
                *(m.text(self.score_name, layout) for m in self.measured),
            ]
        )

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """The results as rows, by name of the logged table."""
        measured = [row for front in self.measured for row in front.rows()]
        return table_rows(self.analysis) | ({PREFIX: measured} if measured else {})

    def _repr_markdown_(self) -> str:
        """The findings, as a notebook shows them."""
        return self.text(markdown)


def run_analysis(options: AnalyzeOptions) -> LoggedAnalysis:
    """Rank the parts by how much their bits affect the score, and log the findings."""
    from mmq.tracking import plain_run

    report = path_to_write("report", options.report, ".md")
    settings = Settings(
        options.trees, options.bootstrap, options.repeats, options.seed, options.jobs
    )
    source = _from_files(options) if options.file else _from_studies(options)
    tables, links = source.tables, source.links
    _check(tables)
    logged = (
        "study",
        "tag",
        "filter",
        "score",
        "samples",
        "trees",
        "bootstrap",
        "repeats",
        "seed",
    )
    params = {f"analysis.{name}": getattr(options, name) for name in logged}
    params["analysis.file"] = ",".join(Path(name).name for name in options.file.split(","))
    title = f"analysis of {', '.join(table.name for table in tables)}"[:250]
    with plain_run(options.experiment, title, params, kind="analysis") as run:
        analysis = analyze(tables, settings)
        figures = _figures(analysis, source)
        result = LoggedAnalysis(
            analysis, figures, run.run_link(), source.measured, source.score_name
        )
        run.log_tables({f"{name}.json": rows for name, rows in result.rows().items()})
        linked = "\n".join(f"- [{study}]({link})" for study, link in links.items())
        run.describe(result.text(markdown) + (f"\n\nStudies:\n\n{linked}" if linked else ""))
        for name, figure in figures.items():
            save_figure(run, figure, f"{name}.png", None)
        tags = {"mmq.studies": ", ".join(links)} if links else None
        run.log(metrics=_metrics(analysis), tags=tags)
    if report is not None:
        _write_report(report, result.text(markdown), figures)
    return result


def _figures(analysis: Analysis, source: Source) -> dict[str, Any]:
    """All figures by name."""
    figures = analysis_figures(analysis, source.title)
    if source.fronts:
        figures["fronts"] = fronts_figure(source.fronts, source.score_name, source.subject)
    return figures | named_figures(source.measured, source.score_name, source.subject)


def _write_report(path: Path, findings: str, figures: Mapping[str, Any]) -> None:
    """The findings as Markdown, with the figures beside it."""
    finding, _, rest = findings.partition("\n\n")
    pictures = []
    for name, figure in figures.items():
        file = path.with_name(f"{path.stem}-{name}.png")
        figure.savefig(file)
        pictures.append(f"![{name.replace('-', ' ')}]({file.name})")
    path.write_text("\n\n".join([f"# {finding}", *pictures, rest]).rstrip() + "\n")


def _metrics(analysis: Analysis) -> dict[str, float]:
    """The metrics that analyses are sorted by."""
    first = analysis.rankings["score"][0]
    metrics = {"configurations": float(sum(table.n for table in analysis.tables))}
    if first.forest is not None and first.linear is not None:
        metrics |= {"r2_forest": first.forest.value, "r2_linear": first.linear.value}
    return {name: round(value, 6) for name, value in metrics.items()}


def _check(tables: Sequence[Table]) -> None:
    """InputError for tables that cannot be analyzed."""
    for table in tables:
        if table.n < 2:
            raise InputError(
                f"{table.name}: there is only one configuration; an analysis needs several"
            )
    common = set.intersection(*(set(table.parts) for table in tables))
    if not common:
        names = "; ".join(f"{table.name}: {', '.join(table.parts)}" for table in tables)
        raise InputError(f"the studies have no part in common; analyze them one by one ({names})")


def _from_files(options: AnalyzeOptions) -> Source:
    import pandas

    if options.study or options.tag or options.filter:
        raise InputError("file: give either files or study, tag and filter, not both")
    bits = parse_pairs("bits-columns", options.bits_columns)
    tables = []
    for name in (part.strip() for part in options.file.split(",") if part.strip()):
        results = read_results(Path(name), bits, options.score)
        if not results.rows:
            raise InputError(f"{name}: all of its rows are invalid:\n{results.problem_text}")
        rows = [{**r.allocation.as_dict(), "score": r.metrics["score"]} for r in results.rows]
        columns = {part: part for part in results.parts}
        table = make_table(pandas.DataFrame(rows), columns, name=Path(name).stem)
        if results.problems:
            note = f"{len(results.problems)} invalid rows skipped:\n{results.problem_text}"
            table = table.noting(note)
        tables.append(table)
    return Source(tables, score_name=options.score or "score")


def _table(group: "StudyTrials") -> Table:
    """The table of a study's trials, with the samples that were read."""
    import pandas

    parts, rows = group.rows()
    values = [group.samples[trial.run_id] for trial in group.trials] if group.samples else None
    table = make_table(
        pandas.DataFrame(rows),
        {part: part for part in parts},
        name=group.name,
        samples=values,
        pictures=group.pictures,
    )
    return table.noting(*group.notes)


def _from_studies(options: AnalyzeOptions) -> Source:
    from mmq.tracking.queries import check_quotes, find_trials, latest_study
    from mmq.tracking.sample_scores import read_samples
    from mmq.tracking.subjects import score_name, subject

    studies = [name.strip() for name in options.study.split(",") if name.strip()]
    clauses = [
        f"tags.`{check_quotes(key)}` = '{check_quotes(value)}'"
        for key, value in parse_pairs("tag", options.tag).items()
    ]
    query = " and ".join([*clauses, *([options.filter] if options.filter else [])])
    score = options.score or "score"
    if not studies and not query:
        studies = [latest_study(options.experiment)]
        notify(f"Analyzing the latest study, {studies[0]}; --study NAME,NAME compares several.")
    groups, links = find_trials(options.experiment, studies, query, score)
    # the parts that one task needs may not be those of another
    families = [(group, group.by_task() if score == "score" else []) for group in groups]
    groups = [each for group, tasks in families for each in (group, *tasks)]
    if options.samples:
        read_samples(groups, score)
    tables: list[Table] = []
    for group, tasks in families:
        table, own = _table(group), [_table(task) for task in tasks]
        if own and options.samples:
            table = table.with_tasks(own, group.combine)
        tables += [table, *own]
    fronts = {group.name: group.points(score) for group in groups}
    sized = {name: points for name, points in fronts.items() if points}
    return Source(
        sorted(tables, key=lambda table: -table.n),
        subject([group.params for group in groups]),
        options.score or score_name([t.metrics for group in groups for t in group.trials]),
        links,
        sized,
        measured_fronts(groups, score),
    )
