"""How importances are computed: the settings of an analysis."""

from dataclasses import dataclass

from mmq.errors import InputError


@dataclass(frozen=True, slots=True)
class Settings:
    """How the forests are grown and resampled. jobs: processes, 0 for one per core."""

    trees: int = 100
    bootstrap: int = 100
    repeats: int = 50
    seed: int = 0
    jobs: int = 0
    quiet: bool = False

    def __post_init__(self) -> None:
        for name, least in {"trees": 1, "bootstrap": 2, "repeats": 1, "jobs": 0}.items():
            if getattr(self, name) < least:
                raise InputError(f"{name}: {getattr(self, name)} is less than {least}")


DEFAULTS = Settings()
