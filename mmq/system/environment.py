"""The environment of an mmq process: quiet libraries, and no passwords in addresses."""

import os

from mmq.system.secrets import hide_credentials

QUIET = {
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def set_up_environment() -> None:
    """Quiet the libraries, unless the user set otherwise, and hide credentials."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    hide_credentials()
