"""The environment of a process that runs mmq: quiet libraries, and no password in an address."""

import os

from mmq.system.secrets import hide_credentials

QUIET = {
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def set_up_environment() -> None:
    """Quiet the libraries, unless the user chose otherwise, and move credentials out of sight."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    hide_credentials()
