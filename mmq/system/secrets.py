"""Keep the environment's passwords out of everything that is printed, logged or written."""

import base64
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, TextIO
from urllib.parse import SplitResult, parse_qsl, quote, quote_plus, unquote, urlsplit

from mmq.system.variables import variables

HIDDEN = "***"
TRACKING = "MLFLOW_TRACKING_URI"
URIS = (TRACKING, "MLFLOW_REGISTRY_URI")
USER, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
VARIABLES = (  # their entire value is a secret
    PASSWORD, "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN", "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN", "AZURE_STORAGE_ACCESS_KEY", "PGPASSWORD", "HF_TOKEN",
    "OPENAI_API_KEY",
)  # fmt: skip
SECRET = r"(?:password|passwd|pwd|passphrase|token|secret|signature|sig|api_?key|access_?key\w*)"
# greedy up to the last @ before a blank or quote: passwords may contain unencoded / and @
_USERINFO = re.compile(
    r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)(?P<who>(?:(?!://)[^\s'\"<>`])*)@", re.I
)
_QUERY = re.compile(rf"(?P<name>[?&;][\w.-]*{SECRET}=)[^&;#\s'\"<>`)]+", re.I)
PLACEHOLDER = "PASSWORD"  # in addresses that help and errors show
SHORTEST = 5  # minimum length of a secret that is redacted outside addresses
COMMON = ("mlflow", "postgres", "password", "admin", "localhost")  # words that are never redacted


def redact(text: str) -> str:
    """A text without the passwords in its addresses, and without the environment's secrets.

    >>> redact("at postgresql://me:p%40ss@host/db?sslpassword=x and a@b.c")
    'at postgresql://me:***@host/db?sslpassword=*** and a@b.c'
    """
    if "@" in text:
        text = _USERINFO.sub(_hide, text)
    text = _QUERY.sub(rf"\g<name>{HIDDEN}", text)
    for secret in _secrets():
        if secret in text:
            text = re.sub(rf"(?<![^\W_]){re.escape(secret)}(?![^\W_])", HIDDEN, text)
    return text


def _hide(match: re.Match[str]) -> str:
    user, colon, password = match["who"].partition(":")
    if re.search(r"[/?#]", user) or re.match(r"\d*[/?#]", password):  # the @ is in its path
        return match[0]
    if password == PLACEHOLDER:
        return match[0]
    return f"{match['scheme']}{f'{user}:' if colon and user else ''}{HIDDEN}@"


def hide_credentials() -> None:
    """Move the user and password of MLflow's addresses into their environment variables.

    MLflow prints and logs addresses, not these variables. Call it before MLflow is imported.
    """
    for name in URIS:
        parts = _split(os.environ.get(name, ""))
        if parts is None or parts.scheme not in ("http", "https") or "@" not in parts.netloc:
            continue
        who, _, host = parts.netloc.rpartition("@")
        user, _, password = who.partition(":")
        credentials = {USER: unquote(user), PASSWORD: unquote(password)}
        if name != TRACKING and any(
            os.environ.get(k) not in (None, v) for k, v in credentials.items()
        ):
            continue  # MLflow has one user for both servers: this one's stays in its address
        os.environ |= {k: v for k, v in credentials.items() if v}
        os.environ[name] = parts._replace(netloc=host).geturl()


def _split(uri: str) -> SplitResult | None:
    with suppress(ValueError):
        return urlsplit(uri.strip())
    return None


def _secrets() -> set[str]:
    """The environment's secrets in every encoding, except common words."""
    secrets = {text for name in VARIABLES if (text := os.environ.get(name))}
    plain = {*COMMON, os.environ.get(USER, "")}
    for value in variables().values():
        if "://" in value and (parts := _split(value)) is not None:
            secrets |= set(_in_address(parts))
            plain |= {parts.scheme, parts.netloc.rpartition("@")[2].partition(":")[0],
                      unquote(parts.netloc.partition(":")[0]), parts.path.strip("/")}  # fmt: skip
    if (user := os.environ.get(USER)) and (password := os.environ.get(PASSWORD)):
        secrets.add(base64.b64encode(f"{user}:{password}".encode()).decode())
    spellings = (str, lambda text: quote(text, ""), quote_plus, lambda text: repr(text)[1:-1])
    spelled = {spell(text) for text in secrets for spell in spellings}
    return {text for text in spelled if len(text) >= SHORTEST and text not in plain}


def _in_address(parts: SplitResult) -> Iterator[str]:
    who, at, _ = parts.netloc.rpartition("@")
    if at and ":" in who:
        password = who.partition(":")[2]
        yield from (password, unquote(password))
    for name, value in parse_qsl(parts.query):
        if re.search(SECRET, name, re.I):
            yield value


class Redacted:
    """A wrapper of a text stream that redacts what is written to it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text without its secrets."""
        self._stream.write(redact(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write lines without their secrets."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def hide_in_output() -> None:
    """Redact everything this process prints from now on: messages, tracebacks, progress bars.

    Streams are wrapped only if the environment has a secret.
    """
    addresses = any("://" in v and redact(v) != v for v in variables().values())
    if addresses or _secrets():
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if not isinstance(stream, Redacted):
                setattr(sys, name, Redacted(stream))
