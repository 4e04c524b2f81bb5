"""The front of the package: what it names exists, and the example of its docstring runs."""

from __future__ import annotations

import torch

from grainline.rewards import equilibrium as ep


def test_every_public_name_is_there() -> None:
    assert all(hasattr(ep, name) for name in ep.__all__)
    assert len(ep.__all__) == len(set(ep.__all__))


def test_the_example_of_the_docstring_runs() -> None:
    code = (ep.__doc__ or "").split("::")[-1].replace("from grainline.rewards import equilibrium as ep", "")
    lines = [line.strip() for line in code.strip().splitlines() if line.strip()]
    names = {
        "ep": ep,
        "features": torch.randn(6, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 8,
        "one_hot": torch.eye(10, dtype=torch.float64)[:6],
    }
    for line in lines[:-1]:
        exec(line, names)
    assert 0.5 < eval(lines[-1], names) <= 1
