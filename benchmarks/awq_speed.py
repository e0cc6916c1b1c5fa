"""Time of AWQ on one layer: our search for clips and our whole solver against autoawq's.

    python benchmarks/awq_speed.py [--shape 3072x768 ...] [--tokens N] [--threads 1 2]

Both take a layer (out x in) and its float32 inputs. Clips: autoawq's `_compute_best_clip`, which
takes 512 of the tokens, and our `best_clips`, given the Gram matrix of these tokens; the column
"same" is the share of clips that are equal, and the others' errors must be. Whole: autoawq's
`_compute_best_scale` on all tokens (with its layer's state fixed, see plugins/.../auto_awq.py) and
`_compute_best_clip`, at 4 bits; ours from the inputs on, sums included, at 4 bits for one width
and at 2, 3, 4, 5, 6 and 8 for six. All are measured in turns, in one process; reports medians and
their ratios to autoawq's seconds. Needs `pip install 'mmq[legacy]'`.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from mmq_plugins.quantizers.awq import Awq
from mmq_plugins.quantizers.awq_levels import Rounding, rounding_errors
from mmq_plugins.quantizers.awq_search import best_clips, clipped_levels, relative_magnitude
from mmq_plugins.quantizers.legacy import load_solver
from torch import Tensor, nn

from mmq.tensors.affine import MappingType, grouped
from mmq.tensors.layer_inputs import LayerInputs

SIX = (2, 3, 4, 5, 6, 8)
BITS = 4


def layer(rows: int, columns: int, tokens: int) -> tuple[Tensor, Tensor]:
    """A weight (rows, columns) and correlated inputs (tokens, columns), some channels large."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(columns // 4, columns, generator=generator) / 4
    inputs = torch.randn(tokens, columns // 4, generator=generator) @ mixing
    inputs += torch.randn(tokens, columns, generator=generator)
    inputs *= torch.randn(columns, generator=generator).mul_(0.7).exp_()
    return torch.randn(rows, columns, generator=generator) * 0.02, inputs


def autoawq(group_size: int) -> Any:
    """Its quantizer, made without loading a model or calibration data."""
    kind = load_solver("awq.quantize.quantizer").AwqQuantizer
    search = object.__new__(kind)
    search.w_bit, search.group_size, search.zero_point = BITS, group_size, True
    search.duo_scaling, search.max_chunk_memory, search.n_parallel_calib_samples = (
        True,
        2**30,
        None,
    )
    return search


def theirs(search: Any, weight: Tensor, inputs: Tensor) -> None:
    linear: Any = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight = nn.Parameter(weight.clone(), requires_grad=False)
    linear.state_dict = lambda: {"weight": weight}
    magnitudes = relative_magnitude(weight, search.group_size), inputs.abs().mean(0)
    scale = search._compute_best_scale(inputs, *magnitudes, linear, [linear], linear(inputs))
    search._compute_best_clip(weight * scale, inputs / scale)


def ours(weight: Tensor, inputs: Tensor, group_size: int, widths: tuple[int, ...]) -> None:
    sums = LayerInputs(weight.shape[1])
    sums.update_(inputs)
    Awq(group_size=group_size).solve([weight], sums, widths)


def same_clips(search: Any, weight: Tensor, inputs: Tensor, gram: Tensor) -> float:
    """The share of equal clips; the others must be ties: errors equal but for rounding."""
    size = search.group_size
    rounding = Rounding(BITS, size, MappingType.ASYMMETRIC)
    clips = best_clips(weight, gram, rounding)
    expected = search._compute_best_clip(weight, inputs)[..., 0]
    row, group = (clips != expected).nonzero(as_tuple=True)
    w = grouped(weight, size)[row, group]  # (ties, g)
    x = inputs[:: max(1, len(inputs) // 512)].double().reshape(-1, weight.shape[1] // size, size)
    errors = []
    for clip in (clips, expected):
        levels = clipped_levels(w, clip[row, group][:, None], rounding)
        difference = rounding_errors(w, levels).double()
        errors.append(torch.einsum("tng,ng->tn", x[:, group], difference).square().sum(0))
    assert torch.allclose(*errors, rtol=1e-4), "clips differ by more than rounding"
    return 1 - len(row) / clips.numel()


def medians(runs: list[Callable[[], Any]], repeats: int) -> list[float]:
    """Median seconds of every run, alternating, with a warm-up of the fast ones."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for number, run in enumerate(runs):
            start = time.perf_counter()
            run()
            times[number].append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", nargs="+", default=["3072x768", "2048x2048"])
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--group-size", type=int, nargs="+", default=[128, 0])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(
        "| out x in | group size | threads | autoawq clips s | our clips s | faster | same "
        "| autoawq whole s | one width s | faster | six widths s | faster |"
    )
    print("|---|---:" + "|---:" * 10 + "|")
    for shape in options.shape:
        rows, columns = map(int, shape.split("x"))
        weight, inputs = layer(rows, columns, options.tokens)
        taken = inputs[:: max(1, len(inputs) // 512)]  # by autoawq
        gram = taken.T @ taken
        for group_size in options.group_size:
            search = autoawq(group_size or columns)
            rounding = Rounding(BITS, group_size or columns, MappingType.ASYMMETRIC)
            for threads in options.threads:
                torch.set_num_threads(threads)
                same = same_clips(search, weight, inputs, gram)
                clips = partial(best_clips, weight, gram, rounding)
                runs = [
                    partial(search._compute_best_clip, weight, inputs),
                    lambda clips=clips: [clips() for _ in range(5)],  # a short one
                    partial(theirs, search, weight, inputs),
                    partial(ours, weight, inputs, group_size, (BITS,)),
                    partial(ours, weight, inputs, group_size, SIX),
                ]
                base, five, whole, one, six = medians(runs, options.repeats)
                print(
                    f"| {shape} | {group_size or 'row'} | {threads} | {base:.2f} | {five / 5:.3f} "
                    f"| {5 * base / five:.0f}x | {same:.2%} | {whole:.2f} | {one:.2f} "
                    f"| {whole / one:.1f}x | {six:.2f} | {whole / six:.1f}x |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
