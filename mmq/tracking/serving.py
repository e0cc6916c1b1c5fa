"""An exported model as an MLflow model: a picture and a text in, a text out."""

import base64
import binascii
import os
import re
import threading
import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel, PythonModelContext

from mmq.contracts.images import BytesImage, FileImage, ImageRef
from mmq.contracts.vlm import (
    AnswerFormat,
    AnswerProtocol,
    Request,
    VisionLanguageModel,
)
from mmq.errors import InputError, unknown
from mmq.export.facts import read_facts, scored_protocol
from mmq.export.measure import ExportedModel
from mmq.export.targets import build_target
from mmq.system.device import resolve_device
from mmq.system.environment import set_up_environment
from mmq.tracking.mlflow_internals import is_serving

IMAGE, TEXT = "image", "text"
FORMAT, MAX_NEW_TOKENS, NUM_BEAMS = "answer_format", "max_new_tokens", "num_beams"
PICTURES = "MMQ_PICTURES"  # a folder whose files a server may read
DATA_URI = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)
LONGEST_PATH = 4096


class ServedModel(PythonModel):  # type: ignore[misc]  # MLflow has no types
    """Opens an exported folder in its engine once, and answers one request at a time.

    The folder is the model's artifact `model`, or the config's `folder` if it is only referenced.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Open the model; MlflowException where its folder or its engine is missing."""
        set_up_environment()
        self._lock = threading.Lock()
        config = context.model_config or {}
        try:
            folder = _folder(context.artifacts, config)
            device = resolve_device(str(config.get("device", "auto")))
            self._facts = read_facts(folder)
            exported = ExportedModel.of(folder, device)
            target = build_target(exported.target, exported.options)
            stack = ExitStack()
            self._model: VisionLanguageModel = stack.enter_context(target.open(folder, device))
            weakref.finalize(self, stack.close)
        except InputError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,  # MLflow would derive another signature from other types
        params: dict[str, Any] | None = None,
    ) -> list[str]:
        """One text per row; MlflowException names the row and the column that are not valid."""
        params = params or {}
        try:
            rows = model_input.to_dict("records")
            pictures = [_picture(row, number) for number, row in enumerate(rows, start=1)]
            texts = [_text(row, number) for number, row in enumerate(rows, start=1)]
            with self._lock:
                return self._answers(pictures, texts, params)
        except InputError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error

    def _answers(
        self, pictures: Sequence[ImageRef], texts: Sequence[str], params: Mapping[str, Any]
    ) -> list[str]:
        protocol = self._protocol(str(params.get(FORMAT) or ""))
        for name in (MAX_NEW_TOKENS, NUM_BEAMS):
            if (value := int(params.get(name) or 0)) < 0:
                raise InputError(f"{name}: {value} is negative")
            if value:
                config = replace(protocol.config, **{name: value})
                protocol = replace(protocol, config=config)
        rows = enumerate(zip(pictures, texts, strict=True), start=1)
        requests = [_request(protocol, *row, f"row {number}") for number, row in rows]
        return self._model.generate(requests, protocol.config, lambda items, description: items)

    def _protocol(self, name: str) -> AnswerProtocol:
        """The prompt and decoding that the model was scored with, or those of a format."""
        if not name:
            return scored_protocol(self._facts)
        formats = {f.value: f for f in AnswerFormat}
        if name not in formats:
            raise unknown(FORMAT, name, formats)
        protocol = self._model.protocol(formats[name])
        return replace(protocol, config=replace(protocol.config, num_beams=1))


def _request(protocol: AnswerProtocol, picture: ImageRef, text: str, name: str) -> Request:
    """The request of a row; InputError for a text that the prompt has no place for."""
    if "{}" not in protocol.template and text:
        raise InputError(
            f"{name}: the model was scored with the prompt {protocol.template!r}, which takes no "
            f"{TEXT}; leave it empty, or choose {FORMAT} {AnswerFormat.FREE.value!r}"
        )
    return Request((picture,), protocol.prompt(text), name)


def _folder(artifacts: Mapping[str, str], config: Mapping[str, Any]) -> Path:
    if "model" in artifacts:
        return Path(artifacts["model"])
    folder = Path(str(config.get("folder", "")))
    if not folder.is_dir():
        raise InputError(
            f"folder: {folder} is not on this machine, and this version of the model refers to "
            f"it; restore the folder, or export again with --register copy"
        )
    if read_facts(folder).get("key") != config.get("key"):
        raise InputError(
            f"folder: {folder} now contains another model than the one that was registered; "
            f"export again into another folder"
        )
    return folder


def _text(row: Mapping[str, Any], number: int) -> str:
    text = row.get(TEXT)
    if not isinstance(text, str):
        raise InputError(f"row {number}: {TEXT} is not a string but {type(text).__name__}")
    return text


def _picture(row: Mapping[str, Any], number: int) -> ImageRef:
    """The picture of a row, decoded once to check it."""
    value = row.get(IMAGE)
    if isinstance(value, bytes):
        picture: ImageRef = BytesImage(f"row {number}: {IMAGE}", value)
    elif isinstance(value, str) and value.strip():
        picture = _from_text(value.strip(), f"row {number}: {IMAGE}")
    else:
        kind = "empty" if not value else f"of type {type(value).__name__}"
        raise InputError(
            f"row {number}: {IMAGE} is {kind}; give the bytes of a picture in base64, or a data "
            f"URI (data:image/png;base64,...)"
        )
    picture.open()
    return picture


def _from_text(text: str, name: str) -> ImageRef:
    """The picture that a text contains (base64 or a data URI) or names (a path)."""
    if text.startswith(("http://", "https://")):
        raise InputError(f"{name} is a URL, which is not fetched; send the picture in base64")
    if (path := _allowed_path(text)) is not None:
        return FileImage(path)
    prefix = DATA_URI.match(text)
    if text.startswith("data:") and prefix is None:
        raise InputError(
            f"{name}: {text[:40]!r} is not a data URI of a picture in base64 "
            f"(data:image/png;base64,...)"
        )
    try:
        encoded = "".join(text[prefix.end() if prefix else 0 :].split())
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        where = f"a file in the folder {PICTURES}" if is_serving() else "a file on this machine"
        raise InputError(
            f"{name}: {text[:40]!r} is neither a picture in base64 ({error}), nor a data URI, nor "
            f"{where}"
        ) from error
    return BytesImage(name, data)


def _allowed_path(text: str) -> Path | None:
    """The file that a text names; in a server, only inside the folder MMQ_PICTURES.

    Clients of a server must not learn which files its machine has.
    """
    if len(text) > LONGEST_PATH:
        return None
    path = Path(text.removeprefix("file://"))
    if is_serving():
        if not (folder := os.environ.get(PICTURES)):
            return None
        root = Path(folder).resolve()
        path = (root / path).resolve()
        if not path.is_relative_to(root):
            return None
    try:
        return path if path.is_file() else None
    except (OSError, ValueError):  # too long, or with a null byte
        return None
