"""Four steps on as many processes as torchrun starts, in uneven parts. Arguments: the run's folder."""

import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator

from _build import model, train

torch.set_num_threads(1)
accelerator = Accelerator(cpu=True)
folder = Path(sys.argv[1])
counts: list[int] = []
# 7 rows, each alone: the processes get different numbers of forwards, of rows and of tokens.
train(
    model("llama", vocab_size=96),
    folder,
    batch_size=7,
    max_tokens=1,
    evaluate=lambda: {"processes": accelerator.num_processes},
    plan={"save_every": 2},
    spy=counts.append,
)
(folder / f"forwards-{accelerator.process_index}.json").write_text(json.dumps(counts))
accelerator.end_training()
