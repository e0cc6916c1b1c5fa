"""Load checkpoints with transformers, and reject weights that it would drop or invent.

The only module that calls private functions of transformers; a test runs it with both versions.
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
    first_names,
    harmless,
    stored_weights,
    unread_files,
)
from mmq.models.generation_settings import reset_others_
from mmq.models.spread import Spread
from mmq.system.versions import major_version

log = logging.getLogger(__name__)
SOME_IN_MEMORY = "With transformers 4, some weights must fit into memory: raise --max-memory"
LoadingInfo = Mapping[str, Any]  # transformers' report of a load, by kind of problem
ROWS = 1024  # checked at once


@contextmanager
def quietly() -> Iterator[None]:
    """Silence the warnings and progress bars of transformers; mmq checks their causes itself."""
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
    """A model's tensors, and whether each has a float dtype."""
    return {name: tensor.is_floating_point() for name, tensor in module.state_dict().items()}


def check_outline(folder: Path, module: nn.Module, allow_unread: bool = False) -> None:
    """InputError for weights that do not match a model, from the headers of their files alone.

    module: the model on the meta device; do not use it afterwards.
    """
    stored = stored_weights(folder)
    if stored is None:  # pickles are checked on loading
        return
    check_stored(folder, stored, expected_tensors(module))
    if (files := unread_files(folder)) and not allow_unread:
        raise InputError(
            f"Model {str(folder)!r}: transformers reads no weights from its {first_names(files)}; "
            f"merge or remove them, or give {UNREAD} if the model is correct without them"
        )
    tensors = {k: torch.empty(s.shape, device="meta") for k, s in stored.items()}
    with quietly():
        info = _meta_loading_info(module, tensors)
    if info is not None:
        check_loading_info(info, str(folder), type(module).__name__, stored, allow_unread)


def _meta_loading_info(module: Any, tensors: dict[str, Tensor]) -> LoadingInfo | None:
    """The report of a load on the meta device; None for an unsupported transformers version."""
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
            tensors,
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
    info, _ = module._load_pretrained_model(module, tensors, None, settings)
    result: LoadingInfo = module._finalize_model_loading(module, settings, info).to_dict()
    return result


def check_loading_info(
    info: LoadingInfo,
    source: str,
    architecture: str,
    stored: Mapping[str, Stored],
    allow_unread: bool = False,
) -> None:
    """InputError for missing weights, wrong shapes and unread weights.

    transformers would fill the first two with random numbers, skip the last, and only warn.
    """
    for key, problem in (("missing_keys", "lacks"), ("mismatched_keys", "has another shape for")):
        names = [_name(entry) for entry in info.get(key) or ()]
        if names:
            raise InputError(
                f"Model {source}: its checkpoint {problem} {len(names)} weights of "
                f"{architecture}, such as {first_names(names)}"
            )
    unread = [n for n in map(_name, info.get("unexpected_keys") or ()) if not harmless(n, stored)]
    if unread and not allow_unread:
        raise InputError(
            f"Model {source}: its checkpoint has {len(unread)} weights that {architecture} "
            f"does not read, such as {first_names(unread)}: more layers than in config.json, an "
            f"adapter (merge it with merge_and_unload() and save the result), or parts of another "
            f"model. Fix the folder, or give {UNREAD} if the model is correct without them"
        )
    if unread:
        log.warning("%s: %d weights are not read: %s", source, len(unread), first_names(unread))
    if errors := info.get("error_msgs"):
        raise InputError(f"Model {source!r} cannot be loaded: {str(errors)[:500]}")


def _name(entry: Any) -> str:
    """The name of a tensor, which transformers reports alone or with its shapes."""
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

    device: one, or a `Spread` over several. Float parameters get the dtype, whatever the
    checkpoint's is, but for those that the model's authors keep in float32.

    InputError for missing weights, wrong shapes, unread weights, and weights that are not finite.
    """
    is_spread = isinstance(device, Spread)
    advice = SOME_IN_MEMORY if is_spread and major_version("transformers") < 5 else ""
    with reading(f"Model {source!r}: its weights cannot be loaded", advice):
        model, info = architecture.from_pretrained(
            source,
            torch_dtype=dtype,
            use_safetensors=None if allow_pickle else True,
            weights_only=True,  # a pickle may hold tensors, never code
            trust_remote_code=False,  # if unset, transformers prompts on the terminal
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **(device.loading_options() if isinstance(device, Spread) else {}),
        )
    folder = downloaded(source)
    stored = (stored_weights(folder) if folder else None) or {}
    if folder and not Path(source).is_dir():  # folders were checked before
        check_stored(folder, stored, expected_tensors(model))
    check_loading_info(info, source, architecture.__name__, stored, allow_unread)
    if folder:
        check_tied(model, folder, stored)
    precise = float32_modules(model, dtype)
    for name, parameter in model.named_parameters():  # buffers stay: rotary ones need float32
        target = torch.float32 if precise & set(name.split(".")) else dtype
        if parameter.is_floating_point() and parameter.dtype != target:
            parameter.data = parameter.data.to(target)
    if not isinstance(device, Spread):
        model = model.to(device)
    check_finite(model, source, stored)
    reset_others_(model)
    return model


def float32_modules(model: nn.Module, dtype: torch.dtype) -> set[str]:
    """Names of modules and parameters that are too delicate for a dtype of 16 bits."""
    names: set[str] = set()
    for module in model.modules():
        if dtype == torch.float16:
            names |= set(getattr(module, "_keep_in_fp32_modules", None) or ())
        if dtype in (torch.float16, torch.bfloat16):
            names |= set(getattr(module, "_keep_in_fp32_modules_strict", None) or ())
    return names


def downloaded(source: str) -> Path | None:
    """The folder of a model: itself, or that of the hub's cache; None if unknown."""
    from transformers.utils.hub import cached_file

    if Path(source).is_dir():
        return Path(source)
    path = cached_file(
        source, "config.json", local_files_only=True, _raise_exceptions_for_missing_entries=False
    )
    return Path(path).parent if path else None


def check_tied(model: nn.Module, folder: Path, stored: Mapping[str, Stored]) -> None:
    """InputError if the checkpoint has different values for weights that the model ties.

    One of them would not be read.
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
                    f"Model {str(folder)!r}: its checkpoint has {' and '.join(names)} with "
                    f"different values, but its config.json ties them (tie_word_embeddings); set "
                    f"that to false if both are intended"
                )


def read_tensor(folder: Path, stored: Stored, name: str) -> Tensor:
    """One tensor of a checkpoint."""
    with safe_open(folder / stored.file, framework="pt") as file:
        tensor: Tensor = file.get_tensor(name)
    return tensor


@torch.no_grad()
def check_finite(model: nn.Module, source: str, stored: Mapping[str, Stored]) -> None:
    """InputError for the first tensor of a checkpoint with an Inf or NaN.

    Buffers that the model computes may have some (masks); they are not in the checkpoint.
    """
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    ends = {_end(name) for name in stored}
    for name, tensor in model.state_dict().items():
        if tensor.is_meta:  # on disk: checked when it is quantized
            continue
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
            f"Model {source}: {name}: {count} of its {tensor.numel()} values are infinite or "
            f"NaN. {advice}"
        )


def _end(name: str) -> str:
    """A name without its prefix, which varies between versions of transformers."""
    return ".".join(name.split(".")[-2:])


def _not_finite(tensor: Tensor) -> int:
    """Number of infinite or NaN values, counted some rows at a time."""
    rows = torch.split(tensor.reshape(len(tensor), -1), ROWS) if tensor.dim() > 1 else [tensor]
    return sum(int((~torch.isfinite(part)).sum()) for part in rows)
