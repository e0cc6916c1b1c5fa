"""The declarations in a task's YAML: decoding, metrics, and why mmq cannot score it, if so."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

from mmq.errors import InputError
from mmq.system.hashing import digest
from mmq_plugins.lmms.outside_help import download_of, is_caption_metric, judge_of
from mmq_plugins.lmms.task_files import INSTALL, find_task

log = logging.getLogger(__name__)
DECODING = ("max_new_tokens", "num_beams", "min_new_tokens", "length_penalty")
SAMPLING = ("temperature", "top_p", "top_k", "do_sample", "until")  # understood, none of DECODING


@dataclass(frozen=True)
class Benchmark:
    """A task of lmms-eval. `config` has its functions as objects."""

    name: str
    config: Mapping[str, Any]
    lmms_eval: str
    digest: str  # hash of the config, with functions as their names

    @property
    def evaluated_split(self) -> str:
        """The split that lmms-eval scores."""
        return str(self.config.get("test_split") or self.config.get("validation_split") or "")

    @property
    def metrics(self) -> dict[str, Mapping[str, Any]]:
        """The metrics that have scores, by name, as declared."""
        declared = self.config.get("metric_list") or []
        return {str(m["metric"]): m for m in declared if m["metric"] != "submission"}

    @property
    def decoding(self) -> dict[str, Any]:
        """The decoding settings that are set."""
        settings = self.config.get("generation_kwargs") or {}
        return {name: settings[name] for name in DECODING if settings.get(name) is not None}

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts at which an output ends; lmms-eval's models ignore an empty line, too."""
        until = (self.config.get("generation_kwargs") or {}).get("until") or ()
        texts = (until,) if isinstance(until, str) else until
        return tuple(text for text in texts if text and text != "\n\n")

    @property
    def samples_tokens(self) -> bool:
        """Whether the task asks for random decoding."""
        settings = self.config.get("generation_kwargs") or {}
        return bool(settings.get("do_sample")) or float(settings.get("temperature") or 0) > 0

    def primary(self, requested: str | None) -> str:
        """The metric to maximize: the requested one, or the first. InputError if it cannot be."""
        names = [n for n, m in self.metrics.items() if m.get("higher_is_better", True)]
        if requested and requested not in self.metrics:
            raise InputError(
                f"metric: lmms:{self.name} has no metric {requested!r}; choose from "
                f"{', '.join(names) or 'none'}"
            )
        if not names or (requested and requested not in names):
            raise InputError(
                f"metric: {requested or 'every metric'} of lmms:{self.name} is better when lower, "
                f"and mmq maximizes scores; choose {' or '.join(names) or 'another task'}"
            )
        return requested or names[0]

    def is_mean(self, metric: str) -> bool:
        """Whether a metric is lmms-eval's mean of one value per sample."""
        return bool(self.metrics[metric].get("aggregation") == "mean")


@cache
def benchmark(name: str) -> Benchmark:
    """A task that mmq can score; InputError with the reason for any other, before any work."""
    path = find_task(name)
    try:
        from lmms_eval import utils
        from loguru import logger

        logger.disable("lmms_eval")  # it reports its defaults, and judges that are not asked
        declared = utils.load_yaml_config(str(path), mode="simple")  # functions by name
        if reason := _refusal(declared):
            raise _refused(name, reason)
        config = utils.load_yaml_config(str(path), mode="full")
    except ImportError as error:
        raise InputError(
            f"task: lmms:{name} cannot be imported ({error}). If a package is missing, install "
            f"it with --no-deps; those that most tasks need: {INSTALL}"
        ) from error
    except InputError:
        raise
    except Exception as error:  # the code of a task can raise anything
        raise InputError(
            f"task: lmms:{name} cannot be read from {path} ({type(error).__name__}: {error})"
        ) from error
    result = Benchmark(name, config, version("lmms-eval"), digest(_plain(config)))
    if not result.evaluated_split or not result.metrics:
        raise _refused(name, "it has no split or no metric; its results go to a server")
    if reason := _refused_functions(config, result.metrics):
        raise _refused(name, reason)
    _warn_of_settings(result)
    return result


def _refused(name: str, reason: str) -> InputError:
    return InputError(f"task: lmms:{name} cannot be scored: {reason}")


def _refusal(config: Mapping[str, Any]) -> str:
    """Why mmq cannot score a task by what its YAML declares; "" if it can."""
    output = str(config.get("output_type") or "generate_until").strip()
    media = config.get("dataset_kwargs") or {}
    if output != "generate_until":
        return (
            f"its output type is {output}, but mmq scores one generated text per sample; choose "
            f"a task with output_type generate_until, or --task choice"
        )
    if media.get("video") or media.get("From_YouTube"):
        return "it is about videos, and mmq supports pictures only"
    if config.get("doc_to_visual") is None:
        return "it has no pictures; choose a task with doc_to_visual"
    if int(config.get("repeats") or 1) > 1:
        return f"it repeats each request {config['repeats']} times, and mmq decodes greedily"
    if config.get("full_docs") or config.get("process_results_use_image"):
        return "its scores need all rows, or the pictures, and mmq passes one row of text"
    return ""


def _refused_functions(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    functions: list[Callable[..., Any]] = [config.get("process_results")]  # type: ignore[list-item]
    functions += [metric.get("aggregation") for metric in metrics.values()]
    for function in filter(callable, functions):
        if package := judge_of(function):
            return (
                f"{function.__name__} asks another model through {package}, which costs money and "
                f"answers differently each time; choose a task that is scored by rules"
            )
        if is_caption_metric(function):
            return "it scores captions with pycocoevalcap, as mmq does itself: --task captioning"
    reading = [config.get(name) for name in ("doc_to_visual", "doc_to_text", "process_docs")]
    for function in filter(callable, [*functions, *reading]):
        if package := download_of(function):
            return (
                f"{function.__name__} downloads other data than --data through {package}; choose "
                f"another task, or one of mmq's own such as --task gqa"
            )
    return ""


def _warn_of_settings(task: Benchmark) -> None:
    settings = task.config.get("generation_kwargs") or {}
    if unread := sorted(set(settings) - {*DECODING, *SAMPLING}):
        log.warning("lmms:%s: generation_kwargs not used: %s", task.name, ", ".join(unread))


def _plain(value: Any) -> Any:
    """A config with functions as their names: it is the same for every installation."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.__qualname__ if callable(value) else value
