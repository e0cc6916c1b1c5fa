"""Words for messages."""


def counted(number: int, noun: str) -> str:
    """A number with its noun in the singular or the plural.

    >>> counted(1, "trial"), counted(2000, "sample")
    ('1 trial', '2,000 samples')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
