"""Times of answers: sums over parts that predict whole models, measured once."""

from contextlib import nullcontext
from dataclasses import dataclass, replace

import pytest
from mmq_plugins.targets.gguf import Gguf
from mmq_plugins.targets.torch_checkpoint import TorchCheckpoint
from test_sizes import LLAVA, SYMMETRIC

from mmq.allocation.allocation import BitAllocation
from mmq.allocation.parts import names
from mmq.contracts.timing import AnswerTiming
from mmq.contracts.vlm import Request
from mmq.errors import InputError
from mmq.export.latency import Latencies, Workload
from mmq.export.side_files import source_folder
from mmq.export.sizes import TargetSizes
from mmq.models.loading import locate
from mmq.models.skeleton import skeleton

WORK = Workload([Request((), "what is it?", "1")], new_tokens=3)


@dataclass
class Scales:
    """A model that takes a second per MiB of its files."""

    size: int

    def time_answer(self, request, config):
        return AnswerTiming(self.size / 2**20, config.max_new_tokens, 0.0, self.size / 2**20)


@dataclass(frozen=True)
class Weighed(Gguf):
    """An engine whose answers take as long as the files are large."""

    opened = []

    def open(self, folder, device):
        self.opened.append(folder)
        return nullcontext(Scales(sum(path.stat().st_size for path in folder.iterdir())))

    def engine_version(self):
        return "scales 1"


def latencies(target, granularity, monkeypatch, tmp_path, work=WORK):
    monkeypatch.setenv("MMQ_HOME", str(tmp_path))
    outline = skeleton(locate(LLAVA))
    widths = dict.fromkeys(names(outline.components, granularity), (4, 16))
    folder = source_folder(LLAVA)
    sizes = TargetSizes.of("weighed", target, SYMMETRIC, outline, folder, "float32", widths)
    return Latencies(sizes, "fingerprint", work, quiet=True), widths


def test_sums_predict_whole_models_and_are_measured_once(monkeypatch, tmp_path):
    timed, widths = latencies(Weighed(), "type", monkeypatch, tmp_path)
    sums = timed.sums(widths)
    measured = len(Weighed.opened)
    assert measured == 3 * (1 + 2)  # rounds of a reference and one other width per component
    assert timed.sums(widths) == sums
    assert len(Weighed.opened) == measured
    mixed = "vit=4 llm=16"
    predicted = 1000 * sums.at({part: 4 if part.startswith("vit") else 16 for part in widths})
    (confirmed,) = timed.confirm({mixed: predicted}, widths, sums.total)
    assert confirmed.measured == pytest.approx(predicted, rel=1e-3)
    assert str(confirmed).startswith(f"{mixed}: ")
    assert not list((tmp_path / "latency").glob("timed-*"))  # the models are removed


def test_a_slower_machine_does_not_count_as_an_error(monkeypatch, tmp_path):
    timed, widths = latencies(Weighed(), "component", monkeypatch, tmp_path)
    sums = timed.sums(widths)
    quick = Scales.time_answer

    def slow(*args):
        timing = quick(*args)
        return replace(timing, seconds=2 * timing.seconds)

    monkeypatch.setattr(Scales, "time_answer", slow)
    predicted = 1000 * sums.at({"vit": 4, "llm": 4})
    (confirmed,) = timed.confirm({"vit=4 llm=4": predicted}, widths, sums.total)
    assert abs(confirmed.error) < 1e-3


def test_models_that_do_not_fit_on_the_disk_are_refused(monkeypatch, tmp_path):
    timed, _ = latencies(Weighed(), "component", monkeypatch, tmp_path)
    monkeypatch.setattr("mmq.export.latency.free", lambda path: 1e6)
    with pytest.raises(InputError, match="needs 3.4 MiB.*search fewer --bits"):
        timed.seconds([BitAllocation.parse("vit=4 llm=4")])
    assert not TorchCheckpoint.timed
