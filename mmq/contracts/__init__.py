"""The interfaces that plugins implement, one file per kind."""

from mmq.contracts.dataset import Dataset, Splits
from mmq.contracts.evaluation import Evaluation, Prediction
from mmq.contracts.evaluator import (
    Evaluator,
    GeneratingEvaluator,
    QuestionEvaluator,
    RankingEvaluator,
    Scorer,
)
from mmq.contracts.family import (
    ComponentSpec,
    ModelFamily,
    Stage,
    architecture_of,
    with_answer,
)
from mmq.contracts.images import BytesImage, FileImage, ImageRef
from mmq.contracts.launcher import Launcher, LaunchRequest, Output, Workers, WorkerState
from mmq.contracts.metric import Metric
from mmq.contracts.quantizer import CalibratedQuantizer, Quantizer, Solved
from mmq.contracts.report import LayerReport, QuantReport
from mmq.contracts.samples import (
    CaptionSample,
    ChoiceSample,
    QuestionSample,
    Sample,
    ShortAnswerSample,
)
from mmq.contracts.vlm import (
    DEFAULT_INPUTS,
    GENERAL_PROTOCOLS,
    AnswerFormat,
    AnswerProtocol,
    GenerationConfig,
    ImageTextMatcher,
    InputOptions,
    Progress,
    Request,
    VisionLanguageModel,
)

__all__ = [
    "DEFAULT_INPUTS",
    "GENERAL_PROTOCOLS",
    "AnswerFormat",
    "AnswerProtocol",
    "BytesImage",
    "CalibratedQuantizer",
    "CaptionSample",
    "ChoiceSample",
    "ComponentSpec",
    "Dataset",
    "Evaluation",
    "Evaluator",
    "FileImage",
    "GeneratingEvaluator",
    "GenerationConfig",
    "ImageRef",
    "ImageTextMatcher",
    "InputOptions",
    "LaunchRequest",
    "Launcher",
    "LayerReport",
    "Metric",
    "ModelFamily",
    "Output",
    "Prediction",
    "Progress",
    "QuantReport",
    "Quantizer",
    "QuestionEvaluator",
    "QuestionSample",
    "RankingEvaluator",
    "Request",
    "Sample",
    "Scorer",
    "ShortAnswerSample",
    "Solved",
    "Splits",
    "Stage",
    "VisionLanguageModel",
    "WorkerState",
    "Workers",
    "architecture_of",
    "with_answer",
]
