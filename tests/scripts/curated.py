"""Curates as its arguments say: SOURCE OUT STEP... To be killed by test_curate.py."""

from __future__ import annotations

import sys

from grainline.curate import curate

curate(sys.argv[1], sys.argv[3:], sys.argv[2])
