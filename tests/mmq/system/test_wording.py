"""Numbers with their nouns."""

from mmq.system.wording import counted


def test_one_is_singular_and_all_else_plural():
    assert [counted(n, "trial") for n in (0, 1, 2)] == ["0 trials", "1 trial", "2 trials"]
