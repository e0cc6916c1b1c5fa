from mmq_search.trial_lines import TrialLines
from test_study import SPACE, finish, open_study


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
    assert first == "trial 1/10 vit=16 llm=16 16.000 stored bpw 80 (+0)"
    assert rest[1] == (
        "trial 3/10 vit=3 llm=3 3.000 stored bpw 60 (-20), "
        "best so far vit=4 llm=4 4.000 stored bpw 80"
    )


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
