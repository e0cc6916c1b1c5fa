"""Ask a model about pictures in memory, as evaluators do."""

import io
from dataclasses import replace

from mmq.contracts import AnswerFormat, BytesImage, Request
from mmq.evaluation.generating import Task, evaluate


def silent(items, description):
    return items


def picture(image, name="picture"):
    """A reference to a PIL image."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return BytesImage(name, file.getvalue())


def requests_for(model, pictures, questions, answer_format=AnswerFormat.SHORT_ANSWER):
    """One request per picture and question, by the model's own protocol."""
    protocol = model.protocol(answer_format)
    return [
        Request((picture(image, str(k)),), protocol.prompt(question), str(k))
        for k, (image, question) in enumerate(zip(pictures, questions, strict=True))
    ]


def ask(model, pictures, questions, answer_format=AnswerFormat.SHORT_ANSWER, **changes):
    """The model's answer for each picture and question; changes: of the decoding settings."""
    config = replace(model.protocol(answer_format).config, **changes)
    requests = requests_for(model, pictures, questions, answer_format)
    return model.generate(requests, config, silent)


def scores(evaluator, model, samples, everything=None):
    """The evaluation of a model on samples."""
    with Task(evaluator, samples, samples if everything is None else everything) as task:
        return evaluate(task, model, silent)
