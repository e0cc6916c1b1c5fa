"""Measured trials of an analyzed study: score against time beside score against bytes."""

from mmq.allocation.allocation import BitAllocation
from mmq.analysis.tables import aligned
from mmq.studies.measured_fronts import measured_fronts, named_figures
from mmq.tracking.queries import LoggedTrial, StudyTrials

LAPTOP, SERVER = "llama.cpp 1.0, 4 threads, laptop", "llama.cpp 1.0, 16 threads, server"


def trial(allocation, score, seconds=None, mib=4.0, setting=LAPTOP):
    metrics, settings = {"score_low": score - 2, "score_high": score + 2}, {}
    if seconds is not None:
        settings = {"gguf": setting}
        metrics |= {
            "measured/gguf/file_bytes": mib * 2**20,
            "measured/gguf/answer_seconds": seconds,
            "measured/gguf/answer_seconds_low": seconds - 0.1,
            "measured/gguf/answer_seconds_high": seconds + 0.1,
        }
    parsed = BitAllocation.parse(allocation)
    return LoggedTrial(allocation, "s", parsed, score, metrics, {}, allocation, False, settings)


GROUP = StudyTrials(
    "spec",
    [
        trial("vit=16 llm=16", 92.0),
        trial("vit=8 llm=8", 90.0, 0.5, 8.0),
        trial("vit=4 llm=4", 80.0, 0.7, 4.0),
        trial("vit=3 llm=3", 70.0, 0.2, 3.0, SERVER),
    ],
    "rtn",
)


def test_trials_of_one_setting_are_compared_and_others_apart():
    laptop, server = measured_fronts([GROUP], "score")
    assert (laptop.setting, server.setting) == (LAPTOP, SERVER)
    assert [point.allocation for point in server.points] == ["vit=3 llm=3"]
    assert laptop.unquantized == 92.0
    assert laptop.rows()[0]["table"] == "rtn"
    assert list(named_figures([laptop, server], "score", "mine")) == [
        "measured-gguf", "measured-gguf-2"
    ]  # fmt: skip


def test_the_table_names_the_fronts_that_a_trial_is_on():
    laptop, _ = measured_fronts([GROUP], "score")
    heading, _, _, fast, slow = laptop.text("vqa/accuracy", aligned).splitlines()
    assert heading == f"Measured in {LAPTOP}:"
    assert fast.endswith("bytes and time")
    assert slow.split()[-1] == "bytes"
    assert "0.5 (0.4 to 0.6)" in fast
    assert "90 (88 to 92)" in fast


def test_trials_that_were_not_measured_have_no_front():
    assert measured_fronts([StudyTrials("spec", GROUP.trials[:1], "rtn")], "score") == []
