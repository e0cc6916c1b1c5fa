"""Subsets of lists and streams are seeded, uniform and in order."""

from mmq.contracts import BytesImage, FileImage, Sample
from mmq.data.subsets import reservoir, subset, with_pictures


def test_a_limit_is_a_seeded_random_part_in_order():
    part = subset(list(range(100)), 20, seed=1)
    assert part == subset(list(range(100)), 20, seed=1) == sorted(part)
    assert part != list(range(20))
    assert part != subset(list(range(100)), 20, seed=2)
    assert subset([1, 2], 5, seed=0) == [1, 2]


def test_sampling_from_a_stream_is_uniform_and_keeps_the_order():
    counts = [0] * 20
    for seed in range(2000):
        sample = reservoir(iter(range(20)), 5, seed)
        assert sample == sorted(sample)
        assert len(set(sample)) == 5
        for item in sample:
            counts[item] += 1
    assert min(counts) > 420  # 500 expected, standard deviation 19
    assert max(counts) < 580
    assert reservoir(range(3), 5, seed=0) == [0, 1, 2]


def test_samples_with_missing_pictures_are_skipped_and_counted(tmp_path, caplog):
    for name in ("a", "b"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    names = ["a b", "a gone", "folder", "b", "elsewhere/a"]
    samples = [
        Sample(name, name, tuple(FileImage(tmp_path / each) for each in name.split()))
        for name in names
    ]
    samples.append(Sample("cell", "cell", (BytesImage("row 1", b""),)))
    assert [sample.id for sample in with_pictures(samples)] == ["a b", "b", "cell"]
    assert f"3 of 6 training samples have no picture in {tmp_path}" in caplog.text
