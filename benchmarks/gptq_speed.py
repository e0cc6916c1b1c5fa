"""Time of GPTQ on one layer: ours, at one bit width and at six, against one call of auto_gptq.

    python benchmarks/gptq_speed.py [--shape 3072x768 ...] [--tokens N] [--threads 1 2]

Both take a layer (out x in) and its float32 inputs. auto_gptq: add_batch and fasterquant at
4 bits, its defaults otherwise. Ours: the sums over the inputs, their factor, the codes; at 4 bits
for one width, at 2, 3, 4, 5, 6 and 8 for six. The three are measured in turns, in one process, so
that other load on the machine affects them equally; the table has medians and their ratios to
auto_gptq. Needs `pip install 'mmq[legacy]'`.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from unittest import mock

import torch
from mmq_plugins.quantizers.gptq import Ranges, solve
from mmq_plugins.quantizers.gptq_factor import factorize
from mmq_plugins.quantizers.legacy import load_solver
from torch import Tensor, nn

from mmq.tensors.layer_inputs import LayerInputs

SIX = (2, 3, 4, 5, 6, 8)


def layer(rows: int, columns: int, tokens: int) -> tuple[Tensor, Tensor]:
    """A weight (rows, columns) and correlated inputs (tokens, columns)."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(columns // 4, columns, generator=generator) / 4
    inputs = torch.randn(tokens, columns // 4, generator=generator) @ mixing
    inputs += torch.randn(tokens, columns, generator=generator)
    return torch.randn(rows, columns, generator=generator) * 0.02, inputs


def theirs(weight: Tensor, inputs: Tensor, group_size: int) -> None:
    solver = load_solver("auto_gptq.quantization.gptq").GPTQ
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.data = weight.clone()
    gptq = solver(linear)
    gptq.quantizer.configure(4, perchannel=True, sym=False, mse=False)
    gptq.add_batch(inputs, None)
    with mock.patch.object(torch.cuda, "synchronize"):  # it is called without a GPU, too
        gptq.fasterquant(group_size=group_size or -1)


def ours(weight: Tensor, inputs: Tensor, group_size: int, widths: tuple[int, ...]) -> None:
    sums = LayerInputs(weight.shape[1])
    sums.update_(inputs)
    factor = factorize(sums.gram, dtype=torch.float32)
    solve([weight], factor, widths, Ranges(group_size, static_groups=False))


def medians(runs: list[Callable[[], None]], repeats: int) -> list[float]:
    """Median seconds of every run; they take turns, after a first round that does not count."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats + 1):
        for number, run in enumerate(runs):
            start = time.perf_counter()
            run()
            times[number].append(time.perf_counter() - start)
    return [statistics.median(taken[1:]) for taken in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", nargs="+", default=["3072x768", "2048x2048"])
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--group-size", type=int, nargs="+", default=[0, 128])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print("| out x in | group size | threads | auto_gptq ms | one ms | ratio | six ms | ratio |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for shape in options.shape:
        rows, columns = map(int, shape.split("x"))
        weight, inputs = layer(rows, columns, options.tokens)
        for group_size in options.group_size:
            for threads in options.threads:
                torch.set_num_threads(threads)
                runs = [
                    partial(theirs, weight, inputs, group_size),
                    partial(ours, weight, inputs, group_size, (4,)),
                    partial(ours, weight, inputs, group_size, SIX),
                ]
                base, one, six = (1e3 * s for s in medians(runs, options.repeats))
                print(
                    f"| {shape} | {group_size or 'row'} | {threads} | {base:.0f} | {one:.0f} "
                    f"| {one / base:.2f} | {six:.0f} | {six / base:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
