"""Scores as its arguments say: SOURCE OUT REWARD. To be killed by test_scoring.py."""

from __future__ import annotations

import sys

import torch

from grainline.scoring import score

torch.set_num_threads(1)
score(sys.argv[1], sys.argv[3], sys.argv[2])
