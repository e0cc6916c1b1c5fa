"""Search three trials on tiny models of every architecture that the tests build.

    python benchmarks/end_to_end.py [NAME ...] [--quantizers rtn,gptq]

Each model is random, has its real processor, and is saved into a folder; `mmq.search` then scores
three allocations of it on four questions. Random answers are never right, so they are scored by
their vowels. Prints one line per model and quantizer: its number of trials and seconds, or the
reason why it failed. Processors that also read videos need torchvision.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
VOWELS = '''
from dataclasses import dataclass

from mmq.contracts import QuestionEvaluator
from mmq.evaluation.mean_scorer import MeanScorer


@dataclass(frozen=True)
class Vowels(QuestionEvaluator):
    """How many different vowels an answer has."""

    task = "vowels"
    samples_of = "vqa"
    bounds = (0, 1)

    def scorer(self, samples):
        return MeanScorer("vowels/share", share, self.bounds)


def share(sample, output):
    return (1 + len(set(output) & set("aeiou"))) / 6
'''
LIMITS = {"max_new_tokens": 3, "num_beams": 1}


def install(folder: Path) -> None:
    """Make the evaluator a plugin of an installed distribution."""
    info = folder / "vowels-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vowels\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[mmq.evaluators]\nvowels = vowels_plugin:Vowels\n")
    (folder / "vowels_plugin.py").write_text(VOWELS)
    sys.path.insert(0, str(folder))


def search(folder: str, quantizer: str) -> str:
    """The result of a search: its trials, or its error."""
    import mmq

    started = time.perf_counter()
    options = {"group-size": 16} if quantizer != "uniform" else {}
    try:
        study = mmq.search(
            model=folder, task="vowels", quantizer=quantizer, n_trials=3, limit=4,
            calibration_samples=4, bits=[4, 8, 16], prune=False, task_options=LIMITS,
            quantizer_options=options,
        )  # fmt: skip
    except Exception as error:  # a table of all architectures must not end at the first failure
        logging.debug("failed", exc_info=True)
        text = " ".join(str(error).split())
        return f"{type(error).__name__}: {text[:160]}"
    return f"{len(study.points)} trials, {time.perf_counter() - started:.1f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="architectures; default: all that build here")
    parser.add_argument("--quantizers", default="rtn,gptq")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "MMQ_HOME": f"{folder}/home",
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "TRANSFORMERS_VERBOSITY": "error",
        }
        os.chdir(folder)
        install(Path(folder))
        from tiny_vlms import names, save_vlm

        for name in arguments.names or names(loadable=True):
            path = Path(folder) / name
            path.mkdir()
            save_vlm(name, path)
            for quantizer in arguments.quantizers.split(","):
                print(f"{name:20} {quantizer:8} {search(str(path), quantizer)}", flush=True)


if __name__ == "__main__":
    main()
