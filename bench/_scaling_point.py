"""One point of ``scaling.py``, in a process (or several) of its own: prints seconds a step and the peak of memory.

    python bench/_scaling_point.py '{"prompt": 256, "answers": 2}'
    torchrun --nproc_per_node 2 bench/_scaling_point.py '{"parallel": "ddp"}'

A step is a forward and backward pass of DPO over questions of exactly the lengths asked for, the reference with the
adapter off included. With several processes each does its share of the step's questions.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from statistics import median
from typing import Any

import _machine
import _models
import torch
from _sides import ADAPTER, Grainline, Ours, fill_adapter
from accelerate import Accelerator
from torch import nn
from torch.distributed.tensor import DTensor

from grainline import sharding
from grainline.adapters import _seam as adapters
from grainline.forward import Scorer
from grainline.types import Answer, AnswerTokens, Example, Record

VOCABULARY = 8192
SIZES = {  # millions of parameters -> hidden, layers, heads, inner
    10: (256, 8, 4, 704),
    30: (384, 16, 6, 1024),
    100: (768, 14, 12, 2048),
    200: (1024, 16, 16, 2752),
    500: (1408, 20, 22, 3840),
}
TARGETS = {  # adapted matrices a layer
    1: ("q_proj",),
    2: ("q_proj", "v_proj"),
    4: ("q_proj", "k_proj", "v_proj", "o_proj"),
    7: "all-linear",
}


@dataclasses.dataclass
class Point:
    """What is varied, one at a time; the defaults are the point that all curves share."""

    prompt: int = 256  # tokens
    answers: int = 2  # of each question; one pair for each but the first
    length: int = 64  # tokens of an answer
    questions: int = 2  # a step
    size: int = 30  # million parameters
    targets: int = 7  # adapted matrices a layer
    layout: str = "tree"  # or packed: two sequences a pair
    parallel: str = "none"  # ddp, fsdp
    threads: int = 2
    steps: int = 2  # timed
    max_tokens: int = 4096


def main() -> None:
    point = Point(**json.loads(sys.argv[1]))
    torch.set_num_threads(point.threads)
    accelerator = Accelerator(cpu=True)
    device, rank = accelerator.device, accelerator.process_index
    hidden, layers, heads, inner = SIZES[point.size]
    model = _models.llama(VOCABULARY, hidden=hidden, layers=layers, heads=heads, inner=inner, longest=8192)
    count = sum(p.numel() for p in model.parameters())
    adapter = dataclasses.replace(ADAPTER, targets=TARGETS[point.targets])
    model = adapters.attach(adapter, model).train()
    fill_adapter(model)
    step = parallel(Scorer(model), point, accelerator)
    examples = questions(point)[rank :: accelerator.num_processes]
    if point.layout == "packed":
        from _rows import apart

        examples = apart(examples)
    taken = []
    for i in range(point.steps + 1):
        accelerator.wait_for_everyone()
        if i == 1:
            _machine.reset_peak(device)
        clock = _machine.Clock(device)
        step(examples)
        model.zero_grad(set_to_none=True)
        taken.append(clock.read())
    peaks = accelerator.gather(torch.tensor([_machine.peak_mib(device)])).tolist()
    weights = sum(p.to_local().nbytes if isinstance(p, DTensor) else p.nbytes for p in model.parameters())
    if accelerator.is_main_process:
        timed = taken[1:]
        found = {"seconds": median(t.seconds for t in timed), "others": max(t.others for t in timed)}
        found |= {"peak_mib": max(peaks), "parameters": count, "processes": accelerator.num_processes}
        found["weights_mib"] = weights / 2**20
        print(json.dumps(found))
    accelerator.end_training()


def parallel(scorer: Scorer, point: Point, accelerator: Accelerator) -> Any:
    """A step of ``scorer`` alone, wrapped by DDP, or with its frozen weights shared out as a run does it."""
    how = Ours(layout="packed" if point.layout == "packed" else "tree")
    step = Grainline(scorer, how, point.max_tokens, accelerator)
    scorer.fuse()
    if point.parallel == "ddp":
        step.module = nn.parallel.DistributedDataParallel(scorer)
    elif point.parallel == "fsdp":
        sharding.shard(scorer, accelerator.device)
        trained = [p for p in scorer.parameters() if p.requires_grad]

        def learn(examples: list[Example]) -> None:
            step(examples)
            sharding.average(trained)

        return learn
    return step


def questions(point: Point) -> list[Example]:
    """Random tokens: questions of ``prompt`` tokens with ``answers`` answers, the first better than each other."""
    draw = torch.Generator().manual_seed(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(VOCABULARY, (count,), generator=draw).tolist())

    def answer() -> AnswerTokens:
        ids = tokens(point.length)
        return AnswerTokens(ids, tuple((0, 0) for _ in ids), tuple(1.0 for _ in ids))

    found = []
    for q in range(point.questions):
        prompt, best = tokens(point.prompt), answer()
        for k in range(1, point.answers):
            record = Record(f"{q}-{k}", "", (Answer(""), Answer("")))
            found.append(Example(record, prompt, (best, answer())))
    return found


if __name__ == "__main__":
    main()
