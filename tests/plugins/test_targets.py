"""Bundled export targets pass the contract suite."""

import pytest
import transformers
from mmq_plugins.targets.compressed_tensors import CompressedTensors
from mmq_plugins.targets.gguf import Gguf
from mmq_plugins.targets.openvino import OpenVino
from mmq_plugins.targets.torch_checkpoint import TorchCheckpoint

from mmq.testing import TargetContract


class TestTorch(TargetContract):
    def make(self):
        return TorchCheckpoint()

    def bits(self):
        return "vit=8,llm.attn=3"


class TestTorchInFloat32(TargetContract):
    checkpoint, task = "embedded-retrieval", "retrieval"
    options = ()

    def make(self):
        return TorchCheckpoint(dtype="float32")

    def bits(self):
        return "vit=5,qformer=2"


class TestCompressedTensors(TargetContract):
    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip("compressed_tensors", reason="pip install 'mmq[compressed-tensors]'")
        if transformers.__version__ < "5":
            pytest.skip("transformers 4 loads compressed-tensors 0.14 alone")

    def make(self):
        return CompressedTensors()

    def bits(self):
        return "vit=8,llm.attn=3"


class TestGguf(TargetContract):
    @pytest.fixture(autouse=True)
    def _installed(self):
        for package in ("gguf", "xllamacpp"):
            pytest.importorskip(package, reason="pip install 'mmq[gguf]'")

    def make(self):
        return Gguf()

    def bits(self):
        return "vit=8,llm.attn=3,llm.ff=2"


class TestOpenVino(TargetContract):
    checkpoint = "embedded-blip2"

    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip("openvino", reason="pip install 'mmq[openvino]'")
        if transformers.__version__ < "5":
            pytest.skip("the target needs transformers 5")

    def make(self):
        return OpenVino()

    def bits(self):
        return "vit=8,qformer.attn=3,llm.ff=2"
