"""Budgets in studies: trials are within them, and the selection is the table's true one."""

import itertools
import json

import numpy as np
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mmq_plugins.evaluators.vqa import Vqa, VqaScorer
from mmq_plugins.quantizers.rtn import Rtn
from mmq_search.sampler_setup import SamplerSetup
from mmq_search.space import Space
from test_study import open_study, record

from mmq.allocation.allocation import BitAllocation
from mmq.analysis.budgets import Budget
from mmq.artifacts.artifacts import Artifacts
from mmq.artifacts.store import Store
from mmq.cli.main import cli
from mmq.config import EvalOptions
from mmq.contracts import QuantReport
from mmq.errors import InputError
from mmq.models.loading import locate
from mmq.models.size import measure_size, planned_bpw, planned_size
from mmq.models.skeleton import skeleton
from mmq.prepare import prepare

BITS = (2, 3, 4, 5, 6, 8, 16)


@pytest.fixture(scope="module")
def blip2():
    return skeleton(locate("embedded-blip2"))


def make_setup(skeleton, granularity="component", axis="stored", quantizer=None, **budget):
    space = Space(tuple(skeleton.components), BITS, granularity)
    return SamplerSetup.of(space, skeleton, Budget.parse(**budget), quantizer or Rtn(), axis=axis)


@pytest.mark.parametrize("granularity", ["component", "fine"])
@pytest.mark.parametrize("axis", ["stored", "nominal"])
def test_sizes_are_those_of_the_plan(blip2, granularity, axis):
    setup = make_setup(blip2, granularity, axis, Rtn(group_size=16))
    rng = np.random.default_rng(0)
    for _ in range(5):
        params = {name: int(rng.integers(0, len(BITS))) for name in setup.space.parts}
        allocation = setup.space.allocation(params)
        planned = planned_size(allocation, blip2.components, blip2.parameters, Rtn(group_size=16))
        assert setup.bpw(params) == planned.bpw
        assert setup.stored_bpw(params) == planned.stored_bpw
        assert setup.size(params) == (
            planned.stored_bpw
            if axis == "stored"
            else planned_bpw(allocation, blip2.components, blip2.parameters)
        )
        assert setup.gib(params) == planned.stored_gib


@pytest.mark.parametrize("options", [{"group-size": "32"}, {"symmetric": "true"}, {}])
def test_the_planned_size_is_the_measured_one_to_the_digit(tmp_path, options):
    eval_options = EvalOptions(model="embedded-llava", limit="4", quantizer="rtn")
    prepared = prepare(eval_options, options, lambda parts: [BitAllocation.uniform(parts, 3)])
    model = prepared.load()
    artifacts = Artifacts(prepared.eval_spec, prepared.quantizer, Store(tmp_path), None, {}, True)
    allocation = BitAllocation.parse("vit.attn=3,llm.ff=5").over(model.components)
    report = QuantReport(tuple(artifacts.write_(model, allocation)))
    size = measure_size(report, prepared.skeleton.parameters)
    llava = prepared.skeleton
    planned = planned_size(allocation, llava.components, llava.parameters, prepared.quantizer)
    assert planned == size
    space = Space(tuple(llava.components), (3, 5, 16), "type")
    setup = SamplerSetup.of(space, llava, Budget(), prepared.quantizer)
    assert setup.size(space.params(allocation)) == size.stored_bpw


def test_a_budget_that_no_allocation_meets_is_refused_before_the_model_is_loaded(blip2):
    with pytest.raises(InputError, match="max-bpw: 2 cannot be reached; the smallest allocation"):
        make_setup(blip2, max_bpw="2")
    with pytest.raises(InputError, match="max-size-gib: 1e-05 cannot be reached"):
        make_setup(blip2, max_gib="0.00001")
    space = Space(tuple(blip2.components), (2, 4))
    for score, reason in (("101", "cannot be reached"), ("0", "is met by every model")):
        with pytest.raises(InputError, match=f"min-score: {score} {reason}; .* between 0 and 100"):
            SamplerSetup.of(space, blip2, Budget.parse(min_score=score), Rtn(), Vqa.bounds)


def test_the_size_that_a_refusal_names_can_be_reached(blip2):
    with pytest.raises(InputError) as error:
        make_setup(blip2, max_bpw="2")
    named = str(error.value).split(" has ")[1].split()[0]
    assert make_setup(blip2, max_bpw=named).first()


def test_a_bound_counts_scales_unless_the_axis_is_nominal(blip2):
    small = Rtn(group_size=16)
    setup = make_setup(blip2, quantizer=small, max_bpw="5.5")
    stored = [a for a in setup.first() if not setup.is_reference(a)]
    nominal = make_setup(blip2, axis="nominal", quantizer=small, max_bpw="5.5").first()
    assert set(map(str, stored)) < set(map(str, nominal))
    for allocation in stored:
        size = planned_size(allocation, blip2.components, blip2.parameters, small)
        assert size.stored_bpw <= 5.5


def made_up():
    """A setup whose sizes are those of `record`, and the whole table."""
    space = Space(("vit", "llm"), BITS)
    setup = SamplerSetup(space, Budget(), (1, 3), 4)
    table = {}
    for bits in itertools.product(BITS, repeat=2):
        allocation = BitAllocation.of(dict(zip(("vit", "llm"), bits, strict=True)))
        params = space.params(allocation)
        table[str(allocation)] = setup.bpw(params)
    return setup, table


COMPARED = {  # with a selection of at most 5 bpw: rules of up to 5.5, and the next uniform width
    "vit=16 llm=16", "vit=16 llm=2", "vit=6 llm=6"
}  # fmt: skip


def test_a_bounded_search_evaluates_nothing_larger_but_what_it_is_compared_with(tmp_path):
    setup, sizes = made_up()
    setup.budget = Budget.parse(max_bpw="5")
    study = open_study(tmp_path, space=setup.space, setup=setup)
    evaluated = []
    while (trial := study.ask()) is not None:
        study.records.put(record(trial).in_run("r"))
        study.tell(trial)
        evaluated.append(str(trial.allocation))
    small = {name for name, bpw in sizes.items() if bpw <= 5}
    assert set(evaluated) == small | COMPARED
    assert len(evaluated) == len(set(evaluated))


def test_only_allocations_within_the_budget_are_counted():
    setup, sizes = made_up()
    setup.budget = Budget.parse(max_bpw="5")
    small = sum(bpw <= 5 for bpw in sizes.values())
    assert setup.count_new(set()) == small + len(COMPARED)
    assert setup.count_new(set(sizes)) == 0


def test_the_smallest_within_a_drop_is_found_in_a_few_trials(tmp_path):
    setup, _ = made_up()
    setup.budget = Budget.parse(max_drop="1%")
    study = open_study(tmp_path, space=setup.space, setup=setup)
    for _ in range(11):  # of 49; the first ten are rules of thumb
        trial = study.ask()
        study.records.put(record(trial).in_run("r"))
        study.tell(trial)
    (answer,) = study.results(["a", "b"], setup.budget, 4).selections()
    assert answer.point.allocation == "vit=3 llm=4"  # of `record`: 80 from these widths on


def said_by(*arguments):
    return CliRunner().invoke(cli, arguments, catch_exceptions=False).output


def test_a_search_registers_its_selection_and_a_trial_evaluates_it(store_uri):
    options = ["--model", "embedded-llava", "--limit", "12", "--bits", "3,4,16"]
    options += ["--study", "bounded"]
    said = said_by("search", *options, "--n-trials", "4", "--max-bpw", "6", "--group-size", "32")
    assert "best under 6 bpw: mmq trial --run models:/bounded@best-under-6-bpw" in said
    assert "Export it: mmq export --run models:/bounded@best-under-6-bpw --target TARGET" in said
    version = MlflowClient().get_model_version_by_alias("bounded", "best-under-6-bpw")
    assert BitAllocation.of(json.loads(version.tags["allocation"])).components == ["vit", "llm"]
    trial = MlflowClient().get_run(version.run_id)
    assert trial.data.tags["mmq.allocation"] in version.description
    said = said_by("trial", "--run", "models:/bounded@best-under-6-bpw")
    assert "samples" not in said  # the same ones as in the search
    assert "n = 12" in said
    said = said_by("trial", "--run", "models:/bounded@best-under-6-bpw", "--limit", "6")
    assert "The samples differ from those of that run" in said
    said = said_by("trial", "--run", trial.info.run_id, "--bits", "vit=4,llm=4", "--limit", "6")
    assert "vit=4 llm=4\n5." in said  # what is given counts


def test_trials_of_a_grid_or_another_search_are_reused(store_uri, evaluated):
    options = ["--model", "embedded-llava", "--limit", "9", "--bits", "4,16", "--quantizer", "rtn"]
    said_by("grid", *options, "--study", "before")
    assert len(evaluated) == 4
    said_by("search", *options, "--n-trials", "4", "--max-drop", "50%", "--study", "after")
    assert len(evaluated) == 4
    client = MlflowClient()
    experiment = client.get_experiment_by_name("mmq").experiment_id
    trials = client.search_runs([experiment], "tags.`mmq.study` = 'after'")
    trials = {t.info.run_id: t for t in trials if t.data.tags["mmq.kind"] == "trial"}
    assert len(trials) == 4
    for trial in trials.values():
        original = client.get_run(trial.data.tags["mmq.recorded_by"])
        assert original.data.tags["mmq.study"] == "before"
        assert original.data.metrics["score"] == trial.data.metrics["score"]
    assert (
        client.get_model_version_by_alias("after", "smallest-within-50-percent").run_id in trials
    )
    said_by("search", *options, "--n-trials", "2", "--seed", "5", "--study", "first")
    assert len(evaluated) == 6
    said_by("grid", *options, "--seed", "5", "--study", "second")
    assert len(evaluated) == 8


ASKED = ["--model", "embedded-llava", "--limit", "9", "--quantizer", "rtn"]
WRONG = ["--min-new-tokens", "12", "--max-new-tokens", "12"]  # an answer is a word


@pytest.mark.parametrize(
    "command",
    [
        ("search", "--bits", "4,16"),
        ("search", "--bits", "4", "--max-bpw", "6"),
        ("grid", "--bits", "4"),
        ("ablate", "--bits", "4"),
    ],
)
def test_a_baseline_that_scores_nothing_ends_the_command(store_uri, evaluated, command):
    with pytest.raises(
        InputError, match="unquantized model scores 0 .* run `mmq evaluate-baseline`"
    ):
        said_by(*command, *ASKED, *WRONG)
    assert [allocation for _, allocation in evaluated] in ([], ["vit=16 llm=16"])
    client = MlflowClient()
    assert not client.search_registered_models()
    (experiment,) = client.search_experiments(filter_string="name = 'mmq'")
    (parent,) = client.search_runs([experiment.experiment_id], "tags.`mmq.kind` = 'study'")
    assert parent.info.status == "FAILED"


def test_a_search_without_16_bits_evaluates_the_unquantized_model_first(
    store_uri, evaluated, monkeypatch, tmp_path
):
    monkeypatch.setenv("MMQ_HOME", str(tmp_path / "home"))  # no record of another test is reused
    output = said_by("search", *ASKED, "--bits", "3,8", "--n-trials", "2", "--study", "aside")
    assert evaluated[0][1] == "vit=16 llm=16"
    assert len(evaluated) == 3
    assert "The unquantized model was evaluated for comparison; it is not a trial." in output
    assert "none of them unquantized" not in output
    output = said_by("search", *ASKED, "--bits", "3,8", "--n-trials", "3", "--study", "aside")
    assert "2 of 3 allocations are evaluated" in output
    assert len(evaluated) == 4


def test_a_model_larger_than_planned_and_allowed_is_not_evaluated(store_uri, monkeypatch):
    scored, real = [], VqaScorer.score

    def watched(self, *arguments):
        scored.append(1)
        return real(self, *arguments)

    def codes_alone(self, shape, bits):
        return shape[0] * shape[1] * bits

    monkeypatch.setattr(Rtn, "stored_bits", codes_alone)
    monkeypatch.setattr(VqaScorer, "score", watched)
    options = [*ASKED, "--bits", "4,16", "--group-size", "16", "--max-bpw", "5.5"]
    output = said_by("search", *options, "--study", "larger", "--prune", "false")
    assert len(scored) == 1  # the unquantized model: 4 bits in groups of 16 are 5.25
    assert "best under 5.5 bpw: none" in output
    assert "Not evaluated: 1, larger than planned and than the bound" in output
    client = MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'mmq'")
    query = "tags.`mmq.study` = 'larger' and tags.`mmq.kind` = 'trial'"
    trials = client.search_runs([experiment.experiment_id], query)
    assert sorted(run.info.status for run in trials) == ["FINISHED", "KILLED"]
