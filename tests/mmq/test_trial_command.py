from mmq.cli.trial import example_lines
from mmq.contracts import Prediction


def test_answers_of_a_model_that_scores_nothing_are_excerpts_of_a_few_samples():
    long = Prediction("b", (), "what is it? " * 20, "", "dog", 0.0)
    first, second, third = example_lines(
        [Prediction("a", (), "which?", "two\nlines", "one", 0.0), long, long, long]
    )
    assert first == "e.g. a: which? -> 'two lines' (expected: one)"
    assert second == third
    assert len(second) < 160
    assert second.endswith("[...] -> '' (expected: dog)")
