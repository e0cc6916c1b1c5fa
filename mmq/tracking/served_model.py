"""The code of the MLflow models that `mmq export` logs: a copy of this file lies in each of them.

The model itself is mmq's and the weights are files, so that nothing is pickled.
"""

from mlflow.models import set_model

from mmq.tracking.serving import ServedModel

set_model(ServedModel())
