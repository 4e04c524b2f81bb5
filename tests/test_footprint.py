"""What a forward costs, against counts by hand and against what a real forward keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from _build import adapted, example, many, model
from grainline import footprint, heads, rooms
from grainline.adapters._seam import tagged
from grainline.adapters.lora import LoRA
from grainline.data.collate import collate
from grainline.footprint import Size
from grainline.forward import Scorer
from grainline.optimizers.adamw import AdamW


def test_size_by_hand() -> None:
    """Prompt of 2; answers of 3 and 1 tokens, whose last ones are not fed: trees of 2 + 2 + 0."""
    rows = [example(0, [3, 4], [5, 6, 7], [8])]
    assert footprint.size(collate(rows, layout="tree")) == Size(4, 16, 4 + 2)
    assert footprint.size(collate(rows, layout="packed")) == Size(6, 16 + 4, 6)
    assert footprint.size(collate(rows, layout="padded")) == Size(8, 32, 8)


def test_add() -> None:
    assert footprint.add([Size(1, 2, 3), Size(4, 5, 6)], 2) == Size(10, 14, 18)
    assert footprint.add([]) == Size(0, 0, 0)


@pytest.mark.parametrize("layout", ["tree", "packed", "padded"])
def test_flops_of_a_plain_forward_by_hand(layout: Any) -> None:
    """Two FLOPs for each weight of a matrix and token; the head at answer positions only; four for attention."""
    llama = model("llama", vocab_size=96).to("meta")
    batch = collate(many(4), layout=layout)
    config, size = llama.config, footprint.size(batch)
    matrices = sum(
        p.numel() for n, p in llama.named_parameters() if p.ndim == 2 and "embed" not in n and "head" not in n
    )
    head = config.hidden_size * config.vocab_size
    found = footprint.cost(llama, batch)
    assert found.forward * size.tokens == 2 * (matrices * size.tokens + head * batch.target.numel())
    assert found.attention == 4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim
    width = found.attention * size.squares
    assert found.flops(size, train=False) == pytest.approx(found.forward * size.tokens + width)
    assert found.flops(size, train=True) == pytest.approx(found.train * size.tokens + 3.5 * width)


@pytest.mark.parametrize("objective", ["dpo", "sparsepo", "sparsepo:module=simple_last,masks=independent"])
@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("layout", ["packed", "tree"])
def test_kept_is_what_a_real_forward_keeps(layout: Any, fuse: bool, objective: str) -> None:
    """The same hooks over the real weights; a fused kernel would keep sums of its probabilities too."""
    real = adapted(model("llama", vocab_size=96))
    batch = collate(many(6), layout=layout)
    scorer, found = Scorer(real).train(), {}
    heads.attach(rooms.parse("objectives", objective), scorer)
    states = real.config.num_hidden_layers if objective == "sparsepo" else 1
    reference = batch.logprobs(torch.zeros(batch.rows.shape))
    reference = reference._replace(hidden=torch.randn(*batch.rows.shape, states, real.config.hidden_size))
    if fuse:
        scorer.fuse()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        scorer(batch, reference)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*scorer.parameters(), *scorer.buffers())}
    kept = sum(storage.nbytes() for at, storage in found.items() if at not in own)
    beside = None if scorer.heads is None else scorer.heads.to("meta")
    bare = real.to("meta")
    estimated = footprint.cost(bare, batch, fuse=fuse, beside=beside, states=states)
    assert estimated.kept == pytest.approx(kept, rel=0.005)
    fused = footprint.cost(bare, batch, fuse=fuse, on_cpu=False, beside=beside, states=states).kept
    sums = 4 * real.config.num_hidden_layers * real.config.num_attention_heads * batch.ids.numel()
    assert fused == estimated.kept + sums  # the output is kept by the product that follows, in any case


def test_the_state_of_adamw() -> None:
    """Two numbers a weight, and a step counter a tensor."""
    spec = LoRA(rank=4)
    lora = adapted(model("llama")).to("meta")
    parameters = tagged(spec, lora)
    size = sum(tensor.numel() for _, tensor, _ in parameters)
    assert footprint.optimizer_state(AdamW()(parameters), parameters) == 4 * (2 * size + len(parameters))


def test_memory_of_this_process() -> None:
    held = footprint.resident()
    assert 2**20 < held < 1.01 * footprint.peak()  # the kernel's two counters are not read at one moment
    footprint.forget_peak()
    assert footprint.peak() == pytest.approx(held, rel=0.1)
