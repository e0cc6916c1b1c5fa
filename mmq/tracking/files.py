"""What a run keeps as files: the record, the layer report, the predictions with their pictures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from PIL import Image

from mmq.contracts import LayerReport, Prediction
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
SHOWN_PREDICTIONS = 24  # in the UI's table; all of them are in all_predictions.json
THUMBNAIL = 160  # pixels


def table_tag(*names: str) -> str:
    """Value of the tag that makes the UI render artifacts as tables."""
    return json.dumps([{"path": name, "type": "table"} for name in names])


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """A table as the UI reads it: columns and data."""
    columns = list(rows[0]) if rows else []
    data = [[row[column] for column in columns] for row in rows]
    path.write_text(json.dumps({"columns": columns, "data": data}))


def write_record(folder: Path, record: TrialRecord, run_id: str) -> None:
    """record.json, the layer table, the predictions table and all predictions."""
    write_facts(folder, record.to_json(), run_id)
    write_layers(folder, record.report.layers)
    write_predictions(folder, record.evaluation.predictions)


def write_predictions(folder: Path, predictions: Sequence[Prediction]) -> None:
    """The predictions table and all predictions."""
    everything = [_prediction_facts(p) for p in predictions]
    (folder / ALL_PREDICTIONS).write_text(json.dumps(everything))
    step = max(1, len(predictions) // SHOWN_PREDICTIONS)
    shown = predictions[::step][:SHOWN_PREDICTIONS]  # the same samples in every trial
    write_table(folder / PREDICTIONS, [_prediction_row(folder, k, p) for k, p in enumerate(shown)])


def write_facts(folder: Path, facts: Mapping[str, Any], run_id: str) -> None:
    """record.json, sealed with its run's id."""
    (folder / RECORD).write_text(sealed.dump_json(facts, run_id, indent=1))


def read_facts(path: Path, run_id: str) -> dict[str, Any]:
    """What `write_facts` wrote; FileNotFoundError or Unusable where it is not that.

    Runs of earlier versions have records without a seal. One that lost its seal through damage
    has a member that no record had then, or is not JSON any more.
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
    """The layer table."""
    write_table(folder / LAYERS, [_layer_row(asdict(layer)) for layer in layers])


def _layer_row(layer: dict[str, Any]) -> dict[str, Any]:
    layer["shape"] = " x ".join(map(str, layer["shape"]))
    for name in ("relative_error", "output_error"):
        if layer[name] is not None:
            layer[name] = round(layer[name], 5)
    return layer


def _prediction_facts(prediction: Prediction) -> dict[str, Any]:
    """A prediction with the file names of its pictures in place of the pictures."""
    facts = {field.name: getattr(prediction, field.name) for field in fields(prediction)}
    images = facts.pop("images")
    return facts | {"image": " + ".join(Path(image.name).name for image in images)}


def _thumbnail(prediction: Prediction) -> Image.Image:
    """The pictures side by side, each within a square of THUMBNAIL pixels."""
    pictures = [image.open() for image in prediction.images]
    for picture in pictures:
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
    width = sum(picture.width for picture in pictures)
    sheet = Image.new("RGB", (width, max(picture.height for picture in pictures)), "white")
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width
    return sheet


def _prediction_row(folder: Path, index: int, prediction: Prediction) -> dict[str, Any]:
    images = Path("table_images") / Path(PREDICTIONS).stem
    (folder / images).mkdir(parents=True, exist_ok=True)
    name = images / f"{index}.png"  # ids come from files and may hold anything
    image = _thumbnail(prediction)
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
