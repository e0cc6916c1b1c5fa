"""Contract tests for plugin authors: subclass one, give it your plugin, run pytest.

class TestMyQuantizer(QuantizerContract):
    def make(self):
        return MyQuantizer(group_size=32)
"""

from mmq.testing.evaluators import EvaluatorContract
from mmq.testing.quantizers import CalibratedQuantizerContract, QuantizerContract

__all__ = ["CalibratedQuantizerContract", "EvaluatorContract", "QuantizerContract"]
