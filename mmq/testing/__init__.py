"""Contract tests for plugin authors: subclass one, give it your plugin, run pytest.

class TestMyQuantizer(QuantizerContract):
    def make(self):
        return MyQuantizer(group_size=32)
"""

from mmq.testing.datasets import DatasetContract
from mmq.testing.evaluators import EvaluatorContract
from mmq.testing.families import FamilyContract
from mmq.testing.launchers import LauncherContract
from mmq.testing.quantizers import CalibratedQuantizerContract, QuantizerContract
from mmq.testing.targets import TargetContract

__all__ = [
    "CalibratedQuantizerContract",
    "DatasetContract",
    "EvaluatorContract",
    "FamilyContract",
    "LauncherContract",
    "QuantizerContract",
    "TargetContract",
]
