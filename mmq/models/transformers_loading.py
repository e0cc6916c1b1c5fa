"""How transformers loads a checkpoint: what it would leave out is found before or refused after.

The one place that calls private functions of transformers; a test runs it with both versions.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from mmq.errors import InputError
from mmq.models.checkpoint_errors import reading
from mmq.models.checkpoint_weights import (
    UNREAD,
    Stored,
    check_stored,
    harmless,
    named,
    stored_weights,
    unread_files,
)

log = logging.getLogger(__name__)
Found = Mapping[str, Any]  # what transformers says about a load, by kind
ROWS = 1024  # looked at together


@contextmanager
def quietly() -> Iterator[None]:
    """No warnings and bars of transformers: what they say is checked."""
    from transformers.utils import logging as theirs

    logger = logging.getLogger("transformers")
    level, bars = logger.level, theirs.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            theirs.enable_progress_bar()


def expected_tensors(module: nn.Module) -> dict[str, bool]:
    """A model's own tensors, each with whether it is a floating one."""
    return {name: tensor.is_floating_point() for name, tensor in module.state_dict().items()}


def check_outline(folder: Path, module: nn.Module, allow_unread: bool = False) -> None:
    """InputError for weights that do not fit a model, from the headers of their files alone.

    module: the model on the meta device; it is of no use for anything else then.
    """
    stored = stored_weights(folder)
    if stored is None:  # pickles: their weights are checked when they are loaded
        return
    check_stored(folder, stored, expected_tensors(module))
    if (files := unread_files(folder)) and not allow_unread:
        raise InputError(
            f"Model {str(folder)!r}: transformers reads no weights from {named(files)} in it; "
            f"merge or remove them, or give {UNREAD} if the model is right without"
        )
    outline = {k: torch.empty(s.shape, device="meta") for k, s in stored.items()}
    with quietly():
        found = _outlined(module, outline)
    if found is not None:
        check_found(found, str(folder), type(module).__name__, stored, allow_unread)


def _outlined(module: Any, outline: dict[str, Tensor]) -> Found | None:
    """What loading would leave out; None where this version of transformers is not known."""
    device = {"": torch.device("meta")}
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.modeling_utils import LoadStateDictConfig
    except ImportError:  # before 5.0
        architecture = type(module)
        if not hasattr(architecture, "_load_pretrained_model"):
            return None
        module.tie_weights()
        _, missing, unexpected, mismatched, _, errors = architecture._load_pretrained_model(
            module,
            outline,
            None,
            None,
            ignore_mismatched_sizes=True,
            device_map=device,
            dtype=torch.float32,
            key_mapping=getattr(architecture, "_checkpoint_conversion_mapping", None),
        )
        return {
            "missing_keys": missing,
            "unexpected_keys": unexpected,
            "mismatched_keys": mismatched,
            "error_msgs": errors,
        }
    if not hasattr(module, "_load_pretrained_model"):
        return None
    module.tie_weights()
    settings = LoadStateDictConfig(
        ignore_mismatched_sizes=True,
        device_map=device,
        dtype=torch.float32,
        weight_mapping=get_model_conversion_mapping(module),
    )
    info, _ = module._load_pretrained_model(module, outline, None, settings)
    found: Found = module._finalize_model_loading(module, settings, info).to_dict()
    return found


def check_found(
    found: Found,
    source: str,
    architecture: str,
    stored: Mapping[str, Stored],
    allow_unread: bool = False,
) -> None:
    """InputError for weights that a checkpoint lacks, has in another shape or has too many.

    transformers would fill the first two with random numbers, leave out the last, and say so in a
    warning only.
    """
    for key, problem in (("missing_keys", "lacks"), ("mismatched_keys", "has another shape for")):
        names = [_name(entry) for entry in found.get(key) or ()]
        if names:
            raise InputError(
                f"Model {source}: its checkpoint {problem} {len(names)} weights of "
                f"{architecture}, such as {named(names)}"
            )
    unread = [n for n in map(_name, found.get("unexpected_keys") or ()) if not harmless(n, stored)]
    if unread and not allow_unread:
        raise InputError(
            f"Model {source}: its checkpoint holds {len(unread)} weights that nothing in "
            f"{architecture} reads, such as {named(unread)}: more layers than config.json names, "
            f"an adapter (merge it with merge_and_unload() and save that), or parts of another "
            f"model. Correct the folder, or give {UNREAD} if the model is right without them"
        )
    if unread:
        log.warning("%s: %d weights are not read: %s", source, len(unread), named(unread))
    if errors := found.get("error_msgs"):
        raise InputError(f"Model {source!r} cannot be loaded: {str(errors)[:500]}")


def _name(entry: Any) -> str:
    """The name of a tensor that transformers gives alone or with its shapes."""
    return str(entry if isinstance(entry, str) else entry[0])


def load_weights(
    architecture: Any,
    source: str,
    dtype: Any,
    device: str,
    allow_pickle: bool = False,
    allow_unread: bool = False,
) -> Any:
    """A transformers model with all of its weights, from safetensors unless pickles are allowed.

    Every floating parameter has the dtype: what a checkpoint was saved in, and what a version of
    transformers keeps in float32, does not count.

    InputError for a checkpoint that lacks weights, holds some of another shape or some that
    nothing reads, and for weights that are not finite.
    """
    with reading(f"Model {source!r}: its weights cannot be loaded"):
        model, found = architecture.from_pretrained(
            source,
            torch_dtype=dtype,
            use_safetensors=None if allow_pickle else True,
            weights_only=True,  # a pickle may hold tensors, never code
            trust_remote_code=False,  # unsaid, transformers would ask on the terminal
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    folder = downloaded(source)
    stored = (stored_weights(folder) if folder else None) or {}
    if folder and not Path(source).is_dir():  # a folder was checked before
        check_stored(folder, stored, expected_tensors(model))
    check_found(found, source, architecture.__name__, stored, allow_unread)
    if folder:
        check_tied(model, folder, stored)
    for parameter in model.parameters():  # buffers stay: rotary frequencies need float32
        if parameter.is_floating_point() and parameter.dtype != dtype:
            parameter.data = parameter.data.to(dtype)
    model = model.to(device)
    check_finite(model, source, stored)
    return model


def downloaded(source: str) -> Path | None:
    """The folder of a model: itself, or where the hub's files are kept; None if unknown."""
    from transformers.utils.hub import cached_file

    if Path(source).is_dir():
        return Path(source)
    path = cached_file(
        source, "config.json", local_files_only=True, _raise_exceptions_for_missing_entries=False
    )
    return Path(path).parent if path else None


def check_tied(model: nn.Module, folder: Path, stored: Mapping[str, Stored]) -> None:
    """InputError where the checkpoint holds two weights that the model makes one.

    One of them would not be read. Two equal ones are as good as one.
    """
    groups: dict[int, set[str]] = {}
    shapes: dict[int, tuple[int, ...]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), set()).add(_end(name))
        shapes[id(parameter)] = tuple(parameter.shape)
    for key, ends in groups.items():
        if len(ends) > 1:
            names = [n for n, s in stored.items() if _end(n) in ends and s.shape == shapes[key]]
            values = [read_tensor(folder, stored[name], name) for name in names]
            if any(not torch.equal(value, values[0]) for value in values):
                raise InputError(
                    f"Model {str(folder)!r}: its checkpoint holds {' and '.join(names)} with "
                    f"different values, but its config.json ties them (tie_word_embeddings); set "
                    f"that to false if both are meant"
                )


def read_tensor(folder: Path, stored: Stored, name: str) -> Tensor:
    """One tensor of a checkpoint."""
    with safe_open(folder / stored.file, framework="pt") as file:
        tensor: Tensor = file.get_tensor(name)
    return tensor


@torch.no_grad()
def check_finite(model: nn.Module, source: str, stored: Mapping[str, Stored]) -> None:
    """InputError for the first tensor of a checkpoint with an Inf or NaN, by its name.

    Buffers that a model makes itself may hold some (masks); they are not in the checkpoint.
    """
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    ends = {_end(name) for name in stored}
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point() or (count := _not_finite(tensor)) == 0:
            continue
        if name not in parameters and stored and _end(name) not in ends:
            continue
        half = tensor.dtype in (torch.float16, torch.bfloat16)
        advice = (
            f"If they are too large for {str(tensor.dtype).removeprefix('torch.')}, give "
            f"--dtype {'bfloat16 or float32' if tensor.dtype == torch.float16 else 'float32'}; "
            f"otherwise use an undamaged copy"
            if half
            else "Use an undamaged copy"
        )
        raise InputError(
            f"Model {source}: {name}: {count} of its {tensor.numel()} numbers are infinite or not "
            f"a number. {advice}"
        )


def _end(name: str) -> str:
    """A name without what versions of transformers put before it."""
    return ".".join(name.split(".")[-2:])


def _not_finite(tensor: Tensor) -> int:
    """How many numbers are infinite or none, some rows at a time."""
    rows = torch.split(tensor.reshape(len(tensor), -1), ROWS) if tensor.dim() > 1 else [tensor]
    return sum(int((~torch.isfinite(part)).sum()) for part in rows)
