"""A run's files: the record, the layer report, and the predictions with their images."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from PIL import Image

from mmq.contracts import Evaluation, ImageRef, LayerReport, Prediction
from mmq.record import TrialDetails, TrialRecord
from mmq.system import sealed

PREDICTIONS = "predictions.json"
LAYERS = "layers.json"
RECORD = "record.json"
EVALUATION = "evaluation.json"
ALL_PREDICTIONS = "all_predictions.json"
# in the UI's table; all_predictions.json has all of them. Each picture is a request to the server
SHOWN_PREDICTIONS = 8
THUMBNAIL = 160  # pixels
NOTHING: Mapping[str, str] = MappingProxyType({})


def table_tag(*names: str) -> str:
    """Value of the tag that makes the UI render these artifacts as tables."""
    return json.dumps([{"path": name, "type": "table"} for name in names])


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a table in the UI's format: columns and data."""
    columns = list(rows[0]) if rows else []
    data = [[row[column] for column in columns] for row in rows]
    path.write_text(json.dumps({"columns": columns, "data": data}))


def write_record(folder: Path, record: TrialRecord) -> None:
    """Write record.json, sealed with the id of the record's run."""
    (folder / RECORD).write_text(sealed.dump_json(record.to_json(), record.run_id, indent=1))


def read_record(path: Path, run_id: str) -> TrialRecord:
    """What `write_record` wrote; FileNotFoundError or Unusable for anything else."""
    return TrialRecord.from_json(sealed.load_json(sealed.read_bytes(path), run_id))


def write_evaluation(
    folder: Path, evaluation: Evaluation, facts: Mapping[str, Any], run_id: str
) -> None:
    """Write evaluation.json: the scores of something that is not a trial, sealed for its run."""
    content = {
        "facts": dict(facts),
        "primary": evaluation.primary,
        "metrics": {name: asdict(metric) for name, metric in evaluation.metrics.items()},
        "per_sample": {k: [float(x) for x in v] for k, v in evaluation.per_sample.items()},
        "undefined": dict(evaluation.undefined),
    }
    (folder / EVALUATION).write_text(sealed.dump_json(content, run_id, indent=1))


def write_details(
    folder: Path, details: TrialDetails, unquantized: Mapping[str, str] = NOTHING
) -> None:
    """Write the layer table, the predictions table and all predictions."""
    write_layers(folder, details.layers)
    write_predictions(folder, details.predictions, unquantized)


def write_predictions(
    folder: Path, predictions: Sequence[Prediction], unquantized: Mapping[str, str] = NOTHING
) -> None:
    """Write all predictions, and a table of some of them with their pictures.

    unquantized: the unquantized model's outputs by sample; empty if unknown. The table starts with
    samples whose output differs from it, the lowest scores first. One half of the rows are the
    same samples in every trial, which MLflow's side-by-side view compares.
    """
    everything = [_prediction_facts(p) for p in predictions]
    (folder / ALL_PREDICTIONS).write_text(json.dumps(everything))
    shown = _shown(predictions, unquantized)
    rows = [_prediction_row(folder, k, p, unquantized) for k, p in enumerate(shown)]
    write_table(folder / PREDICTIONS, rows)


def read_outputs(path: Path) -> dict[str, str]:
    """Outputs by sample from the file with all predictions."""
    return {str(row["sample_id"]): str(row["text"]) for row in json.loads(path.read_text())}


def _shown(predictions: Sequence[Prediction], unquantized: Mapping[str, str]) -> list[Prediction]:
    """Some at fixed places and the most telling others, changed and wrong ones first."""

    def order(prediction: Prediction) -> tuple[bool, float]:
        return (not _changed(prediction, unquantized), prediction.score)

    fixed_rows = SHOWN_PREDICTIONS // 2
    step = max(1, len(predictions) // fixed_rows)
    fixed = list(predictions[::step][:fixed_rows])
    ids = {prediction.sample_id for prediction in fixed}
    others = sorted((p for p in predictions if p.sample_id not in ids), key=order)
    return sorted(fixed + others[: SHOWN_PREDICTIONS - len(fixed)], key=order)


def _changed(prediction: Prediction, unquantized: Mapping[str, str]) -> bool:
    return unquantized.get(prediction.sample_id, prediction.text) != prediction.text


def write_layers(folder: Path, layers: Sequence[LayerReport]) -> None:
    """Write the layer table."""
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


def write_pictured_table(
    path: Path, rows: list[dict[str, Any]], pictures: Sequence[Sequence[ImageRef]]
) -> None:
    """Write a table with the pictures of each row in its first column, if any row has some."""
    if any(pictures):
        rows = [
            {"image": _image_cell(path, k, images) if images else "", **row}
            for k, (row, images) in enumerate(zip(rows, pictures, strict=True))
        ]
    write_table(path, rows)


def _thumbnail(images: Sequence[ImageRef]) -> Image.Image:
    """The pictures side by side, each within a square of THUMBNAIL pixels."""
    pictures = [image.open() for image in images]
    for picture in pictures:
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
    width = sum(picture.width for picture in pictures)
    sheet = Image.new("RGB", (width, max(picture.height for picture in pictures)), "white")
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width
    return sheet


def _image_cell(table: Path, index: int, images: Sequence[ImageRef]) -> dict[str, str]:
    """Write the pictures of a row beside the table, as the UI finds them."""
    place = Path("table_images") / table.stem
    (table.parent / place).mkdir(parents=True, exist_ok=True)
    name = place / f"{index}.png"  # sample ids come from files and may contain any character
    _thumbnail(images).save(table.parent / name)
    return {"type": "image", "filepath": name.as_posix(), "compressed_filepath": name.as_posix()}


def _prediction_row(
    folder: Path, index: int, prediction: Prediction, unquantized: Mapping[str, str]
) -> dict[str, Any]:
    return {  # MLflow's side-by-side view groups by the first column of text: a row per sample
        "sample": f"{prediction.sample_id}: {prediction.prompt}",
        "image": _image_cell(folder / PREDICTIONS, index, prediction.images),
        "prediction": prediction.text,
        "expected": prediction.expected,
        "score": round(prediction.score, 3),
        "unquantized": unquantized.get(prediction.sample_id, ""),
    }
