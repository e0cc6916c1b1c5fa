"""What a plugin implements, one file per kind."""

from mmq.contracts.dataset import Dataset, Splits
from mmq.contracts.evaluation import Evaluation, Prediction
from mmq.contracts.evaluator import Evaluator, Progress
from mmq.contracts.family import (
    ComponentSpec,
    GenerationConfig,
    ModelFamily,
    Stage,
    architecture_of,
    with_answer,
)
from mmq.contracts.images import BytesImage, FileImage, ImageRef
from mmq.contracts.metric import Metric
from mmq.contracts.quantizer import CalibratedQuantizer, Quantizer, Solved
from mmq.contracts.report import LayerReport, QuantReport
from mmq.contracts.samples import CaptionSample, QuestionSample, Sample

__all__ = [
    "BytesImage",
    "CalibratedQuantizer",
    "CaptionSample",
    "ComponentSpec",
    "Dataset",
    "Evaluation",
    "Evaluator",
    "FileImage",
    "GenerationConfig",
    "ImageRef",
    "LayerReport",
    "Metric",
    "ModelFamily",
    "Prediction",
    "Progress",
    "QuantReport",
    "Quantizer",
    "QuestionSample",
    "Sample",
    "Solved",
    "Splits",
    "Stage",
    "architecture_of",
    "with_answer",
]
