"""The environment's variables."""

import os


def variables() -> dict[str, str]:
    """All of them, by name.

    `dict(os.environ)` fails if a thread, such as MLflow's, removes one meanwhile.
    """
    values = {name: os.environ.get(name) for name in list(os.environ)}
    return {name: value for name, value in values.items() if value is not None}
