"""How long do spectral adapters take to start, and what does the faster way cost? Exact beside randomised, in turn.

    python bench/decomposition.py                         rank 8 and 32, three layers of SmolLM2-135M
    python bench/decomposition.py --ranks 8 --every 1     all layers

Each linear matrix of the chosen layers is decomposed exactly and by power iterations; nothing is read from the cache.
``product`` is what the adapter is made of, U S V': its distance to the exact one, relative. ``lost`` says how much
further from the weight it is than the best of its rank, in per cent. ``values`` is what SARA's ranks take (singular
values alone). Seconds are summed over the matrices and hold for this machine; the ratio is worth remembering.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch

from grainline import models
from grainline.adapters import _spectral
from grainline.adapters._parts import named_targets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--every", type=int, default=15, help="take each n-th layer (default 15)")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = models.load(models.Choice(options.model, dtype="float32", device="cpu")).model
    layers = range(0, model.config.num_hidden_layers, options.every)
    weights = [model.get_submodule(name).weight.detach() for name in named_targets(model, "all-linear", layers)]
    _spectral._LARGE = 1 << 62  # no cache: each is found anew
    factors(weights[0], 1, True)  # warms up
    seconds = sum(timed(_spectral.singular_values, weight)[0] for weight in weights)
    print(f"{len(weights)} matrices, {options.threads} threads; values {seconds:.2f} s")
    names = {"exact s": 10, "fast s": 10, "times": 8, "product": 12, "worst": 12, "lost %": 10, "worst %": 10}
    print(f"{'rank':>6}" + "".join(f"{name:>{width}}" for name, width in names.items()))
    for rank in options.ranks:
        rows = torch.tensor([compared(weight, rank) for weight in weights])
        exact, fast = rows[:, 0].sum(), rows[:, 1].sum()
        product, lost = rows[:, 2], 100 * rows[:, 3]
        print(
            f"{rank:6}{exact:10.2f}{fast:10.2f}{exact / fast:8.1f}{product.mean():12.1e}{product.max():12.1e}"
            f"{lost.mean():10.4f}{lost.max():10.4f}"
        )


def compared(weight: torch.Tensor, rank: int) -> tuple[float, float, float, float]:
    """Seconds of both ways, distance of their products, and the share of the error that is added."""
    exact_seconds, exact = timed(factors, weight, rank, False)
    fast_seconds, fast = timed(factors, weight, rank, True)
    best, found = ((part.U_OK * part.S_K) @ part.V_IK.T for part in (exact, fast))
    added = (weight - found).norm() / (weight - best).norm() - 1
    return exact_seconds, fast_seconds, float((found - best).norm() / best.norm()), float(added)


def factors(weight: torch.Tensor, rank: int, randomised: bool) -> _spectral.SpectralFactors:
    return _spectral.factors(weight, rank, randomised=randomised)


def timed(what: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    began = time.perf_counter()
    found = what(*arguments)
    return time.perf_counter() - began, found


if __name__ == "__main__":
    main()
