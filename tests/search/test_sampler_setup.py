"""Budgets in studies: what is asked keeps to them, and the answer is the table's true one."""

import itertools
import json

import numpy as np
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mmq_plugins.evaluators.vqa import Vqa
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
def seen():
    return skeleton(locate("embedded-blip2"))


def steering(seen, grain="component", axis="stored", quantizer=None, **budget):
    space = Space(tuple(seen.components), BITS, grain)
    return SamplerSetup.of(space, seen, Budget.parse(**budget), quantizer or Rtn(), axis=axis)


@pytest.mark.parametrize("grain", ["component", "fine"])
@pytest.mark.parametrize("axis", ["stored", "nominal"])
def test_sizes_are_those_of_the_plan(seen, grain, axis):
    steered = steering(seen, grain, axis, Rtn(group_size=16))
    rng = np.random.default_rng(0)
    for _ in range(5):
        params = {name: int(rng.integers(0, len(BITS))) for name in steered.space.parts}
        allocation = steered.space.allocation(params)
        planned = planned_size(allocation, seen.components, seen.parameters, Rtn(group_size=16))
        assert steered.bpw(params) == planned.bpw
        assert steered.stored_bpw(params) == planned.stored_bpw
        assert steered.size(params) == (
            planned.stored_bpw
            if axis == "stored"
            else planned_bpw(allocation, seen.components, seen.parameters)
        )
        assert steered.gib(params) == planned.stored_gib


@pytest.mark.parametrize("options", [{"group-size": "32"}, {"symmetric": "true"}, {}])
def test_the_plan_is_what_a_trial_weighs_to_the_digit(tmp_path, options):
    chosen = EvalOptions(model="embedded-llava", limit="4", quantizer="rtn")
    prepared = prepare(chosen, options, lambda parts: [BitAllocation.uniform(parts, 3)])
    model = prepared.load()
    artifacts = Artifacts(prepared.eval_spec, prepared.quantizer, Store(tmp_path), None, {}, True)
    allocation = BitAllocation.parse("vit.attn=3,llm.ff=5").over(model.components)
    report = QuantReport(tuple(artifacts.write_(model, allocation)))
    size = measure_size(report, prepared.skeleton.parameters)
    seen = prepared.skeleton
    assert planned_size(allocation, seen.components, seen.parameters, prepared.quantizer) == size
    space = Space(tuple(seen.components), (3, 5, 16), "type")
    steered = SamplerSetup.of(space, seen, Budget(), prepared.quantizer)
    assert steered.size(space.params(allocation)) == size.stored_bpw


def test_a_budget_that_nothing_keeps_to_is_refused_before_the_model_is_loaded(seen):
    with pytest.raises(InputError, match="max-bpw: 2 cannot be reached; the smallest allocation"):
        steering(seen, max_bpw="2")
    with pytest.raises(InputError, match="max-size-gib: 1e-05 cannot be reached"):
        steering(seen, max_gib="0.00001")
    space = Space(tuple(seen.components), (2, 4))
    for score, said in (("101", "cannot be reached"), ("0", "asks for nothing")):
        with pytest.raises(InputError, match=f"min-score: {score} {said}; .* between 0 and 100"):
            SamplerSetup.of(space, seen, Budget.parse(min_score=score), Rtn(), Vqa.bounds)


def test_the_size_that_a_refusal_names_can_be_reached(seen):
    with pytest.raises(InputError) as error:
        steering(seen, max_bpw="2")
    named = str(error.value).split(" has ")[1].split()[0]
    assert steering(seen, max_bpw=named).diagonal()


def test_a_bound_counts_scales_unless_the_nominal_axis_is_asked(seen):
    small = Rtn(group_size=16)
    stored = {str(a) for a in steering(seen, quantizer=small, max_bpw="5.5").diagonal()}
    nominal = steering(seen, axis="nominal", quantizer=small, max_bpw="5.5").diagonal()
    assert stored < {str(a) for a in nominal}
    for allocation in stored - {str(BitAllocation.uniform(seen.components, 16))}:
        parsed = BitAllocation.parse(allocation)
        size = planned_size(parsed, seen.components, seen.parameters, small)
        assert size.stored_bpw <= 5.5


def made_up():
    """A steering whose sizes are those of `record`, and the whole table."""
    space = Space(("vit", "llm"), BITS)
    steered = SamplerSetup(space, Budget(), (1, 3), 4)
    table = {}
    for bits in itertools.product(BITS, repeat=2):
        allocation = BitAllocation.of(dict(zip(("vit", "llm"), bits, strict=True)))
        params = space.params(allocation)
        table[str(allocation)] = steered.bpw(params)
    return steered, table


def test_a_bounded_search_asks_nothing_larger_but_the_unquantized_model(tmp_path):
    steered, sizes = made_up()
    steered.budget = Budget.parse(max_bpw="5")
    study = open_study(tmp_path, space=steered.space, steering=steered)
    asked = []
    while (trial := study.ask()) is not None:
        study.records.put(record(trial).in_run("r"))
        study.tell(trial)
        asked.append(str(trial.allocation))
    small = {name for name, bpw in sizes.items() if bpw <= 5}
    assert set(asked) == small | {"vit=16 llm=16"}
    assert len(asked) == len(set(asked))


def test_how_much_is_left_counts_what_is_allowed():
    steered, sizes = made_up()
    steered.budget = Budget.parse(max_bpw="5")
    assert steered.left(set()) == 1 + sum(bpw <= 5 for bpw in sizes.values())
    assert steered.left(set(sizes)) == 0


def test_the_smallest_within_a_drop_is_found_in_a_few_trials(tmp_path):
    steered, _ = made_up()
    steered.budget = Budget.parse(max_drop="1%")
    study = open_study(tmp_path, space=steered.space, steering=steered)
    for _ in range(14):
        trial = study.ask()
        study.records.put(record(trial).in_run("r"))
        study.tell(trial)
    (answer,) = study.results(["a", "b"], steered.budget, 4).selections()
    assert answer.point.allocation == "vit=3 llm=4"  # of `record`: 80 from these widths on


def said_by(*arguments):
    return CliRunner().invoke(cli, arguments, catch_exceptions=False).output


def test_a_search_registers_its_answer_and_a_trial_applies_it(store_uri):
    options = ["--model", "embedded-llava", "--limit", "12", "--bits", "3,4,16"]
    options += ["--study", "bounded"]
    said = said_by("search", *options, "--n-trials", "4", "--max-bpw", "6", "--group-size", "32")
    assert "best under 6 bpw: mmq trial --run models:/bounded@best-under-6-bpw" in said
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


def test_what_a_grid_or_another_search_evaluated_is_not_evaluated_again(store_uri, evaluated):
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
    with pytest.raises(InputError, match="unquantized model scores 0 .* Check what the model"):
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
    said = said_by("search", *ASKED, "--bits", "3,8", "--n-trials", "2", "--study", "aside")
    assert evaluated[0][1] == "vit=16 llm=16"
    assert len(evaluated) == 3
    assert "The unquantized model was evaluated to compare with; it is no trial." in said
    assert "none of them unquantized" not in said
    said = said_by("search", *ASKED, "--bits", "3,8", "--n-trials", "3", "--study", "aside")
    assert "2 of 3 allocations are evaluated" in said
    assert len(evaluated) == 4


def test_what_takes_more_than_planned_and_allowed_is_not_evaluated(store_uri, monkeypatch):
    scored, real = [], Vqa.predict

    def watched(self, *arguments):
        scored.append(1)
        return real(self, *arguments)

    def codes_alone(self, shape, bits):
        return shape[0] * shape[1] * bits

    monkeypatch.setattr(Rtn, "stored_bits", codes_alone)
    monkeypatch.setattr(Vqa, "predict", watched)
    options = [*ASKED, "--bits", "4,16", "--group-size", "16", "--max-bpw", "5.5"]
    said = said_by("search", *options, "--study", "larger", "--prune", "false")
    assert len(scored) == 1  # the unquantized model: 4 bits in groups of 16 are 5.25
    assert "best under 5.5 bpw: none" in said
    assert "Not evaluated: 1 that took more than planned and than the bound" in said
    client = MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'mmq'")
    query = "tags.`mmq.study` = 'larger' and tags.`mmq.kind` = 'trial'"
    trials = client.search_runs([experiment.experiment_id], query)
    assert sorted(run.info.status for run in trials) == ["FINISHED", "KILLED"]
