"""lmms-eval's own evaluation of a model behind mmq's interface, to compare scores with."""

import io
from pathlib import Path

from PIL import Image

from mmq.contracts import AnswerFormat, BytesImage, Request


def silent(items, description):
    return items


def reference(name, files, split, ids, evaluator, model):
    """Its scores by metric, on the rows with these ids."""
    from lmms_eval.api.model import lmms
    from lmms_eval.api.task import ConfigurableTask
    from lmms_eval.evaluator import evaluate

    protocol = evaluator.protocol(model.protocol(AnswerFormat.FREE))

    class Wrapped(lmms):
        def generate_until(self, requests):
            questions = []
            for context, _, visuals, doc_id, task, of_split in (r.args for r in requests):
                images = visuals(self.task_dict[task][of_split][doc_id])
                pictures = tuple(BytesImage(str(doc_id), png(image)) for image in images)
                questions.append(Request(pictures, protocol.prompt(context), str(doc_id)))
            return model.generate(questions, protocol.config, silent)

        def loglikelihood(self, requests):
            raise NotImplementedError

        def generate_until_multi_round(self, requests):
            raise NotImplementedError

        def clean(self):
            """Do nothing: lmms-eval would delete the model."""

    config = dict(task_config(name))
    config["dataset_kwargs"] = {"data_files": {split: [str(path) for path in files]}}
    config |= {"dataset_path": "parquet", "dataset_name": None}
    task = ConfigurableTask(config=config)
    for data in (task.dataset, task.dataset_no_image):
        data[split] = data[split].select(ids)
    task.task_docs = task.dataset[split]
    wrapped = Wrapped()
    wrapped.task_dict = {name: task.dataset}
    results = evaluate(wrapped, {name: task}, bootstrap_iters=0, cli_args=Arguments())
    return {
        key.partition(",")[0]: value
        for key, value in results["results"][name].items()
        if key.endswith(",none") and "stderr" not in key
    }


class Arguments:
    """lmms-eval's command line, as far as it is read."""

    process_with_media = False
    reasoning_tags = None
    output_path = "."


def task_config(name):
    """A task's configuration, read by lmms-eval."""
    import lmms_eval
    from lmms_eval.tasks import TaskManager
    from lmms_eval.utils import load_yaml_config

    folders = Path(lmms_eval.__path__[0], "tasks").iterdir()
    (folder,) = (path for path in folders if name.startswith(path.name))
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    return load_yaml_config(manager.task_index[name]["yaml_path"], mode="full")


def png(image: Image.Image) -> bytes:
    """A picture's file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
