"""A run that is killed after step 5: no handler, no flush, nothing can be tidied up. Arguments: its folder."""

import os
import signal
import sys
from pathlib import Path

import torch

from _build import model, train


class Kill:
    def on_log(self, args, state, control, **known):
        if state.global_step == 5:
            os.kill(os.getpid(), signal.SIGKILL)


torch.set_num_threads(1)
train(
    model("llama", vocab_size=96),
    Path(sys.argv[1]),
    steps=8,
    layout="packed",
    dropout=0.1,
    plan={"save_every": 2},
    callbacks=[Kill()],
)
