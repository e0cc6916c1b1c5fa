"""Lets torchvision from PyPI, a build for CUDA, be imported beside a PyTorch without CUDA.

Its import names two operators that its CUDA library registers, and fails where that is missing.
`make .venv-vllm/installed` copies this file into vLLM's environment and imports it at start-up,
also of the processes that vLLM starts.
"""

import sys
from importlib.abc import MetaPathFinder


class _DeclareOperators(MetaPathFinder):
    """Declares the operators when torchvision is imported first."""

    def find_spec(self, name, path, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            for operator in ("nms", "qnms"):
                torch.library.define(
                    f"torchvision::{operator}",
                    "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
                )


sys.meta_path.insert(0, _DeclareOperators())
