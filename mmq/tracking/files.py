"""A run's files: the record, the layer report, and the predictions with their images."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmq.contracts import LayerReport, Prediction
from mmq.data.images import open_image
from mmq.record import TrialRecord
from mmq.system import sealed
from mmq.system.sealed import Unusable

PREDICTIONS = "predictions.json"
LAYERS = "layers.json"
RECORD = "record.json"
ALL_PREDICTIONS = "all_predictions.json"
UNSEALED_NEEDED = {
    "question", "allocation", "size", "primary", "metrics", "per_sample", "errors", "seconds",
}  # fmt: skip
UNSEALED_KEYS = UNSEALED_NEEDED | {"pruned", "run_id"}
SHOWN_PREDICTIONS = 24  # in the UI's table; all_predictions.json has all of them
THUMBNAIL = 160  # pixels


def table_tag(*names: str) -> str:
    """Value of the tag that makes the UI render these artifacts as tables."""
    return json.dumps([{"path": name, "type": "table"} for name in names])


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a table in the UI's format: columns and data."""
    columns = list(rows[0]) if rows else []
    data = [[row[column] for column in columns] for row in rows]
    path.write_text(json.dumps({"columns": columns, "data": data}))


def write_record(folder: Path, record: TrialRecord, run_id: str) -> None:
    """Write record.json, the layer table, the predictions table and all predictions."""
    write_facts(folder, record.to_json(), run_id)
    write_layers(folder, record.report.layers)
    predictions = record.evaluation.predictions
    everything = [asdict(p) | {"image": p.image.name} for p in predictions]
    (folder / ALL_PREDICTIONS).write_text(json.dumps(everything))
    step = max(1, len(predictions) // SHOWN_PREDICTIONS)
    shown = predictions[::step][:SHOWN_PREDICTIONS]  # the same samples in every trial
    write_table(folder / PREDICTIONS, [_prediction_row(folder, k, p) for k, p in enumerate(shown)])


def write_facts(folder: Path, facts: Mapping[str, Any], run_id: str) -> None:
    """Write record.json, sealed with its run's id."""
    (folder / RECORD).write_text(sealed.dump_json(facts, run_id, indent=1))


def read_facts(path: Path, run_id: str) -> dict[str, Any]:
    """What `write_facts` wrote; FileNotFoundError or Unusable if it is missing or damaged.

    Records of earlier versions have no seal. A record that lost its seal through damage has a key
    that those did not have, or is no longer JSON.
    """
    data = sealed.read_bytes(path)
    try:
        return sealed.load_json(data, run_id)
    except Unusable:
        try:
            facts = json.loads(data)
        except (ValueError, RecursionError):
            facts = None
        if not isinstance(facts, dict) or not UNSEALED_NEEDED <= facts.keys() <= UNSEALED_KEYS:
            raise
        return facts


def write_layers(folder: Path, layers: Sequence[LayerReport]) -> None:
    """Write the layer table."""
    write_table(folder / LAYERS, [_layer_row(asdict(layer)) for layer in layers])


def _layer_row(layer: dict[str, Any]) -> dict[str, Any]:
    layer["shape"] = " x ".join(map(str, layer["shape"]))
    for name in ("relative_error", "output_error"):
        if layer[name] is not None:
            layer[name] = round(layer[name], 5)
    return layer


def _prediction_row(folder: Path, index: int, prediction: Prediction) -> dict[str, Any]:
    images = Path("table_images") / Path(PREDICTIONS).stem
    (folder / images).mkdir(parents=True, exist_ok=True)
    name = images / f"{index}.png"  # sample ids come from files and may contain any character
    image = open_image(prediction.image)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    image.save(folder / name)
    return {
        "image": {
            "type": "image",
            "filepath": name.as_posix(),
            "compressed_filepath": name.as_posix(),
        },
        "prompt": prediction.prompt,
        "prediction": prediction.text,
        "expected": prediction.expected,
        "score": round(prediction.score, 3),
        "sample": prediction.sample_id,
    }
