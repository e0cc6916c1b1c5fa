"""What can be wrong with the rows of a table, and what to do about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

FIRST = 3  # rows that an error names


@dataclass(slots=True)
class Problem:
    """Rows with the same problem."""

    what: str
    advice: str
    places: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, place: str) -> None:
        """Count a row."""
        self.count += 1
        if len(self.places) < FIRST:
            self.places.append(place)


PROBLEMS: Mapping[str, tuple[str, str]] = {
    "picture": (
        "name a picture that is not there",
        "Write paths relative to the table's folder, or absolute ones.",
    ),
    "no picture": ("have no picture", "Fill in the cells or remove the rows."),
    "question": ("have no question", "Fill in the cells or remove the rows."),
    "answer": (
        "have no answer",
        "Fill in the cells, remove the rows, or choose a split with answers.",
    ),
    "options": ("have fewer than two options, or a gap between them", "Correct or remove them."),
    "caption": ("have no caption", "Fill in the cells or remove the rows."),
}
