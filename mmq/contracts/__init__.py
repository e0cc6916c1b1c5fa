"""What a plugin implements, one file per kind."""

from mmq.contracts.dataset import Dataset
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
from mmq.contracts.metric import Metric
from mmq.contracts.quantizer import CalibratedQuantizer, Quantizer, Solved
from mmq.contracts.report import LayerReport, QuantReport
from mmq.contracts.samples import CaptionSample, QuestionSample, Sample

__all__ = [
    "CalibratedQuantizer",
    "CaptionSample",
    "ComponentSpec",
    "Dataset",
    "Evaluation",
    "Evaluator",
    "GenerationConfig",
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
    "Stage",
    "architecture_of",
    "with_answer",
]
