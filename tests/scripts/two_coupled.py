"""Steps of coupled and of head-training objectives on as many processes as torchrun starts. Argument: a folder."""

import sys
from pathlib import Path

import torch
from accelerate import Accelerator

from _build import model, train_more

torch.set_num_threads(1)
accelerator = Accelerator(cpu=True)
train_more(lambda: model("llama", vocab_size=96), Path(sys.argv[1]))
accelerator.end_training()
