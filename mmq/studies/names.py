"""Names of studies: folders, locks and MLflow filters are made from them."""

import hashlib
import re

from mmq.errors import InputError

LONGEST_NAME = 100  # characters of a study's name: files are named after it


def check_name(study: str) -> None:
    """InputError for a study's name that is unsafe in file names or MLflow filters.

    Empty is valid: mmq then derives a name.
    """
    if not study or study == safe_name(study):
        return
    shown = repr(study if len(study) <= LONGEST_NAME else f"{study[:40]}...")
    raise InputError(
        f"study: {shown} ({len(study)} characters) is not a valid study name; use up to "
        f"{LONGEST_NAME} of the letters a-z and A-Z, digits, '.', '_' and '-', with a letter, "
        f"digit or '_' first and no '.' last, for example {safe_name(study)!r}"
    )


def safe_name(text: str) -> str:
    """A name like this text that `check_name` accepts; a hash covers what was cut off.

    >>> safe_name("../my model")
    'my-model'
    """
    name = re.sub(r"[^A-Za-z0-9._-]", "-", text).lstrip(".-").rstrip(".") or "study"
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return name
