"""The interfaces that plugins implement, one file per kind.

Importing this package is quick: each name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmq.contracts.dataset import Dataset as Dataset
    from mmq.contracts.dataset import Splits as Splits
    from mmq.contracts.evaluation import Evaluation as Evaluation
    from mmq.contracts.evaluation import Prediction as Prediction
    from mmq.contracts.evaluator import Evaluator as Evaluator
    from mmq.contracts.evaluator import GeneratingEvaluator as GeneratingEvaluator
    from mmq.contracts.evaluator import QuestionEvaluator as QuestionEvaluator
    from mmq.contracts.evaluator import RankingEvaluator as RankingEvaluator
    from mmq.contracts.evaluator import Scorer as Scorer
    from mmq.contracts.family import ComponentSpec as ComponentSpec
    from mmq.contracts.family import ModelFamily as ModelFamily
    from mmq.contracts.family import Stage as Stage
    from mmq.contracts.family import architecture_of as architecture_of
    from mmq.contracts.family import with_answer as with_answer
    from mmq.contracts.images import BytesImage as BytesImage
    from mmq.contracts.images import FileImage as FileImage
    from mmq.contracts.images import ImageRef as ImageRef
    from mmq.contracts.launcher import Launcher as Launcher
    from mmq.contracts.launcher import LaunchRequest as LaunchRequest
    from mmq.contracts.launcher import Output as Output
    from mmq.contracts.launcher import Workers as Workers
    from mmq.contracts.launcher import WorkerState as WorkerState
    from mmq.contracts.metric import Metric as Metric
    from mmq.contracts.quantizer import CalibratedQuantizer as CalibratedQuantizer
    from mmq.contracts.quantizer import Quantizer as Quantizer
    from mmq.contracts.quantizer import Solved as Solved
    from mmq.contracts.report import LayerReport as LayerReport
    from mmq.contracts.report import QuantReport as QuantReport
    from mmq.contracts.samples import CaptionSample as CaptionSample
    from mmq.contracts.samples import ChoiceSample as ChoiceSample
    from mmq.contracts.samples import QuestionSample as QuestionSample
    from mmq.contracts.samples import Sample as Sample
    from mmq.contracts.samples import ShortAnswerSample as ShortAnswerSample
    from mmq.contracts.samples import TextSample as TextSample
    from mmq.contracts.vlm import DEFAULT_INPUTS as DEFAULT_INPUTS
    from mmq.contracts.vlm import GENERAL_PROTOCOLS as GENERAL_PROTOCOLS
    from mmq.contracts.vlm import AnswerFormat as AnswerFormat
    from mmq.contracts.vlm import AnswerProtocol as AnswerProtocol
    from mmq.contracts.vlm import GenerationConfig as GenerationConfig
    from mmq.contracts.vlm import ImageTextMatcher as ImageTextMatcher
    from mmq.contracts.vlm import InputOptions as InputOptions
    from mmq.contracts.vlm import Progress as Progress
    from mmq.contracts.vlm import Request as Request
    from mmq.contracts.vlm import VisionLanguageModel as VisionLanguageModel

_PLACES = {
    "AnswerFormat": "vlm",
    "AnswerProtocol": "vlm",
    "BytesImage": "images",
    "CalibratedQuantizer": "quantizer",
    "CaptionSample": "samples",
    "ChoiceSample": "samples",
    "ComponentSpec": "family",
    "DEFAULT_INPUTS": "vlm",
    "Dataset": "dataset",
    "Evaluation": "evaluation",
    "Evaluator": "evaluator",
    "FileImage": "images",
    "GENERAL_PROTOCOLS": "vlm",
    "GeneratingEvaluator": "evaluator",
    "GenerationConfig": "vlm",
    "ImageRef": "images",
    "ImageTextMatcher": "vlm",
    "InputOptions": "vlm",
    "LaunchRequest": "launcher",
    "Launcher": "launcher",
    "LayerReport": "report",
    "Metric": "metric",
    "ModelFamily": "family",
    "Output": "launcher",
    "Prediction": "evaluation",
    "Progress": "vlm",
    "QuantReport": "report",
    "Quantizer": "quantizer",
    "QuestionEvaluator": "evaluator",
    "QuestionSample": "samples",
    "RankingEvaluator": "evaluator",
    "Request": "vlm",
    "Sample": "samples",
    "Scorer": "evaluator",
    "ShortAnswerSample": "samples",
    "Solved": "quantizer",
    "Splits": "dataset",
    "Stage": "family",
    "TextSample": "samples",
    "VisionLanguageModel": "vlm",
    "WorkerState": "launcher",
    "Workers": "launcher",
    "architecture_of": "family",
    "with_answer": "family",
}
__all__ = [*_PLACES]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'mmq.contracts' has no attribute {name!r}")
    return getattr(import_module(f"mmq.contracts.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
