from mmq_search.space import Space
from mmq_search.trial_lines import TrialLines
from test_study import SPACE, finish, open_study
from trial_records import record_of

from mmq.models.size import Size


def test_each_finished_trial_is_one_line_without_control_characters(tmp_path, capfd):
    study = open_study(tmp_path)
    with TrialLines(study, 10) as lines:
        finish(study, 1)
        assert lines.update() == 1
        finish(study, 2)
        assert lines.update() == 3
        assert lines.update() == 3
    printed = capfd.readouterr().err
    assert not set(printed) & {"\r", "\x1b"}
    first, *rest = [line for line in printed.splitlines() if line.startswith("trial ")]
    assert first == "trial 1/10 vit=16 llm=16 16.000 bpw 80 (+0)"
    assert rest == [
        "trial 2/10 vit=4 llm=4 4.000 bpw 80 (+0), the best so far",
        "trial 3/10 vit=3 llm=3 3.000 bpw 60 (-20), best so far: trial 2, 4.000 bpw, 80",
    ]


def test_trials_of_an_earlier_command_are_not_reported_again(tmp_path, capfd):
    study = open_study(tmp_path)
    finish(study, 3)
    with TrialLines(study, 10) as lines:
        lines.update()
        assert "trial" not in capfd.readouterr().err
        finish(study, 1)
        lines.update()
    assert "trial 4/10" in capfd.readouterr().err
    assert len(SPACE) > 10


def test_a_trial_over_many_parts_is_a_line_that_a_log_of_110_columns_holds(tmp_path, capfd):
    space = Space(("vit", "llm"), (2, 3, 4, 16), "fine")
    study = open_study(tmp_path, space=space)
    allocation = space.allocation({name: k % 3 for k, name in enumerate(space.parts)})
    study.enqueue([allocation])
    with TrialLines(study, 40) as lines:
        while str(allocation) not in study.finished():
            pending = study.ask()
            study.records.put(record_of(pending.allocation, 88.5, size=Size(10, 4, 4.199)))
            study.tell(pending)
            lines.update()
    head, *printed = capfd.readouterr().err.splitlines()
    assert head == (
        "Bits of each component: front.attn/front.ff/middle.attn/middle.ff/end.attn/end.ff, or "
        "one width for all of them."
    )
    assert max(map(len, printed)) <= 110
    assert " vit=2/3/4/2/3/4 llm=2/3/4/2/3/4 4.199 bpw 88.5 (+0)" in printed[-1]
