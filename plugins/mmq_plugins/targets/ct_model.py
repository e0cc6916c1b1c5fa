"""Open an exported compressed-tensors folder in transformers."""

from collections.abc import Iterable
from pathlib import Path

import torch
import transformers

from mmq.errors import InputError
from mmq.export.facts import trial_dtype
from mmq.export.targets import need
from mmq.models.checkpoint_errors import reading
from mmq.models.checkpoint_names import stored_names
from mmq.models.loaded import LoadedModel
from mmq.models.skeleton import family_of
from mmq.models.transformers_loading import quietly
from mmq.system.device import DTYPES
from mmq_plugins.targets.ct_engines import EXTRA

ANY_CLASS = "AutoModelForImageTextToText"  # of families without a class of their own


def parameter_names(folder: Path, stored: Iterable[str]) -> dict[str, str]:
    """The parameter in transformers that each of these stored weights belongs to."""
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with quietly(), torch.device("meta"):
        module = family_of(config).skeleton(config)
    return {name: parameter for parameter, name in stored_names(module, stored).items()}


def open_model(folder: Path, device: str) -> LoadedModel:
    """The model as transformers loads it, with all weights decompressed."""
    need("compressed_tensors", EXTRA)
    dtype = DTYPES[trial_dtype(folder)]
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    family = family_of(config)
    architecture = getattr(transformers, getattr(family, "model_class", ANY_CLASS))
    processor = family.load_processor(str(folder))
    with reading(f"{folder} cannot be loaded by transformers"), quietly():
        module, info = architecture.from_pretrained(
            folder, torch_dtype=dtype, trust_remote_code=False, output_loading_info=True
        )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info.get(kind):
            raise InputError(f"{folder}: transformers reports {kind}: {sorted(info[kind])[:3]}")
    if hasattr(module, "hf_quantizer"):  # not in an unquantized checkpoint
        # the model does this at its first forward, but families call parts of it
        module.hf_quantizer.compressor.decompress_model(module)
    module.eval().requires_grad_(False)
    return LoadedModel.without_components(
        module.to(device), processor, family, str(folder), device
    )
