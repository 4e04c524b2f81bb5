"""Where does a step of ours spend its time, and how much of the processor's matrix speed does it use?

    python bench/where.py                       SmolLM2-135M, float32, reference cached: about two minutes
    python bench/where.py --dtype bfloat16
    python bench/where.py --side tree --top 30  with the reference computed; and the 30 most expensive operators

torch's profiler gives each operator's own time. A matrix product belongs to the head if one side is the vocabulary, to
an adapter if one side is at most four times its rank, else to the body. Three figures are made of it:

* ``step / (GEMM + attention)``: 1.0 would be a step that does nothing but matrix products and attention;
* ``GEMMs at their own peak``: the body's and the head's products, each shape at the best that it was seen to do, alone
  or inside, over the time they took inside the step;
* ``share of peak``: the time that the needed operations take at the best rate of any of the step's own shapes, over the
  time of the step. Needed are the body forward and back to its inputs (no weight gradients: it is frozen), the adapter
  forward and both gradients, visible pairs in attention, the head at answer tokens, and the reference unless cached.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from _options import as_dict, parser

RANK = 16
COPIES = ("copy_", "_to_copy", "clone", "cat", "index", "index_put_", "index_select", "gather", "scatter_add_", "fill_")
GEMMS = ("mm", "addmm", "addmm_")


class Operator(NamedTuple):
    """One operator with one set of input shapes, over all profiled steps."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    seconds: float  # its own, without what it calls
    calls: int

    @property
    def product(self) -> tuple[int, int, int] | None:
        """(m, k, n) of a plain matrix product."""
        if self.name not in GEMMS:
            return None
        two = [shape for shape in self.shapes if len(shape) == 2][-2:]
        return (two[0][0], two[0][1], two[1][1]) if len(two) == 2 and two[0][1] == two[1][0] else None

    def kind(self, vocabulary: int) -> str:
        sizes = [size for shape in self.shapes for size in shape]
        if "bmm" in self.name:  # products of many small matrices: attention, where it is not one operator
            return "attention"
        if self.name in GEMMS:
            small = self.product and min(self.product) <= 4 * RANK
            return "head GEMM" if vocabulary in sizes else "adapter GEMM" if small else "body GEMM"
        if "attention" in self.name:
            return "attention"
        if vocabulary in sizes:
            return "head, other passes"
        return "copies, casts, gathers" if self.name in COPIES else "elementwise, norms, other"


def main() -> None:
    options = parse()
    result = measured(options)
    from _race import write

    print(said(result))
    write(result, options.json)


def parse() -> argparse.Namespace:
    made = parser(__doc__, steps=2)
    made.add_argument("--side", choices=["cache", "tree", "packed", "padded"], default="cache", help="default cache")
    made.add_argument("--repeats", type=int, default=3, metavar="N", help="times the steps are timed (default 3)")
    made.add_argument("--top", type=int, default=0, metavar="N", help="also print the N most expensive operators")
    return made.parse_args()


def measured(options: argparse.Namespace) -> dict[str, Any]:
    import _machine
    import torch
    from _rows import tokens
    from _sides import SIDES, Bench, take_gradient

    bench = Bench(options)
    side = bench.side(SIDES[options.side].how)
    timed = range(options.warm, options.warm + options.steps)

    def steps(which: Sequence[int]) -> _machine.Taken:
        clock = _machine.Clock(bench.device)
        for i in which:
            side.run(i)
            take_gradient(side.model)
        return clock.read()

    steps(range(options.warm))
    plain = [steps(timed) for _ in range(options.repeats)]
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, record_shapes=True) as profiler:
        profiled = steps(timed)
    found = operators(profiler)
    if options.top:
        print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=options.top))
    vocabulary = len(bench.tokenizer)
    rates = own_rates(found, getattr(torch, options.dtype))
    needed = flops(bench, side.model, cached=options.side == "cache")
    result = {
        "settings": as_dict(options),
        "machine": _machine.facts(bench.device),
        "tokens": tokens(bench.rows.steps),
        **summed(found, vocabulary),
        "seconds": min(plain, key=lambda taken: taken.seconds)._asdict(),
        "all_seconds": [taken._asdict() for taken in plain],
        "profiled": profiled._asdict(),
        "rates": rates,
        "needed_flop": needed,
    }
    return result | {"figures": figures(result)}


def operators(profiler: Any) -> list[Operator]:
    return [
        Operator(
            event.key.rpartition("::")[2],
            tuple(tuple(shape) for shape in event.input_shapes if shape),
            event.self_cpu_time_total / 1e6,
            event.count,
        )
        for event in profiler.key_averages(group_by_input_shape=True)
    ]


def summed(found: Sequence[Operator], vocabulary: int) -> dict[str, Any]:
    """Seconds a kind."""
    kinds: dict[str, float] = defaultdict(float)
    for operator in found:
        kinds[operator.kind(vocabulary)] += operator.seconds
    return {"kinds": dict(sorted(kinds.items(), key=lambda item: -item[1]))}


def own_rates(found: Sequence[Operator], dtype: Any) -> dict[str, Any]:
    """The products with frozen weights, as fast as each was ever seen: the best rate of all, and their time together.

    Each shape is also timed alone; on a busy machine that can be slower than it was inside the step.
    """
    products: dict[tuple[int, int, int], list[Operator]] = defaultdict(list)
    timed = [(shape, operator) for operator in found if (shape := operator.product) and operator.seconds]
    wide = [(shape, operator) for shape, operator in timed if min(shape) > 4 * RANK]  # adapters are in float32
    for shape, operator in wide or timed:  # in a rehearsal nothing is wide
        products[shape].append(operator)
    inside = {shape: sum(o.seconds for o in own) for shape, own in products.items()}
    calls = {shape: sum(o.calls for o in own) for shape, own in products.items()}
    heavy = sorted(products, key=lambda shape: -inside[shape])[:16]  # the rest is a few hundredths of the time
    once = {shape: min(alone(shape, dtype), inside[shape] / calls[shape]) for shape in heavy}
    best = max(heavy, key=lambda shape: math.prod(shape) / once[shape])
    return {
        "peak_gflops": 2e-9 * math.prod(best) / once[best],
        "at": best,
        "best_seconds": sum(once[shape] * calls[shape] for shape in heavy),
        "inside_seconds": sum(inside[shape] for shape in heavy),
    }


def alone(shape: tuple[int, int, int], dtype: Any) -> float:
    """Seconds of the fastest of a few products of this shape."""
    import torch

    m, k, n = shape
    from grainline import cpu

    a, b = torch.randn(m, k, dtype=dtype), torch.randn(n, k, dtype=dtype).t()
    times = []
    with cpu.full_width():
        for _ in range(5):
            began = time.perf_counter()
            torch.mm(a, b)
            times.append(time.perf_counter() - began)
    return min(times)


def flops(bench: Any, model: Any, *, cached: bool) -> float:
    """Floating point operations that the timed steps need, each prompt once: two for each multiplication."""
    from _rows import tokens

    from grainline.data import collate

    linear = {id(p): p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name}
    tied = model.causal.get_output_embeddings().weight
    adapter = sum(p.numel() for p in linear.values() if p.requires_grad)
    body = sum(p.numel() for p in linear.values() if not p.requires_grad and p is not tied)
    config = model.causal.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    per_pair = 4 * config.num_attention_heads * width * config.num_hidden_layers  # scores and values, forward
    counts, reference = tokens(bench.rows.steps), 0 if cached else 1
    visible = 0
    for step in bench.rows.steps:
        for tree in collate.collate(step).trees:
            visible += tree.prompt * (tree.prompt + 1) // 2
            visible += sum(b * tree.prompt + b * (b + 1) // 2 for b in tree.branches)
    return (
        counts["tree"] * (body * (4 + 2 * reference) + adapter * 6)
        + visible * per_pair * (3 + reference)
        + counts["answers"] * 2 * tied.numel() * (2 + reference)
    )


def figures(result: dict[str, Any]) -> dict[str, float]:
    """The three figures of the module's first lines, the first of them twice."""
    products = sum(s for kind, s in result["kinds"].items() if "GEMM" in kind or kind == "attention")
    seconds, rates = result["seconds"]["seconds"], result["rates"]
    return {
        "step_over_products": result["profiled"]["seconds"] / products,
        "unprofiled_step_over_products": seconds / products,
        "products_at_their_own_peak": rates["best_seconds"] / rates["inside_seconds"],
        "share_of_peak": result["needed_flop"] / seconds / (rates["peak_gflops"] * 1e9),
    }


def said(result: dict[str, Any]) -> str:
    from _race import heading

    kinds, plain, profiled = result["kinds"], result["seconds"], result["profiled"]
    rates, found, whole = result["rates"], result["figures"], sum(result["kinds"].values())
    return "\n".join(
        [
            *heading(result),
            f"{plain['seconds']:.2f} s for the steps (best of {len(result['all_seconds'])}), "
            f"{profiled['seconds']:.2f} s profiled; others {plain['others']:.2f} and {profiled['others']:.2f} cores",
            *(f"  {kind:26}{s:8.3f} s {s / whole:7.1%}" for kind, s in kinds.items()),
            "",
            f"step / (GEMM + attention):  {found['step_over_products']:.2f} in the profiled run, "
            f"{found['unprofiled_step_over_products']:.2f} with the unprofiled step",
            f"GEMMs at their own peak:    {found['products_at_their_own_peak']:.0%} of their time inside",
            f"peak of its own shapes:     {rates['peak_gflops']:.0f} GFLOP/s at {rates['at']}",
            f"needed work:                {result['needed_flop'] / 1e12:.2f} TFLOP, "
            f"{found['share_of_peak']:.0%} of that peak",
        ]
    )


if __name__ == "__main__":
    main()
