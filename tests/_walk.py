"""A walk of 200 steps that our optimizers and the published ones take alike: tensors, gradients, and where it ends.

``python tests/_walk.py`` writes ``golden/optimizers_published.json`` anew, with the published packages installed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from grainline import rooms
from grainline.optimizers import _seam
from grainline.types import Tagged

GOLDEN = Path(__file__).parent / "golden" / "optimizers_published.json"
SHAPES = ((7,), (4, 6), (3, 4, 5), (16, 64), (64, 2), (1, 1))
STEPS = 200
CASES = {
    "adamp": ("adamp:lr=0.01,weight_decay=0.1", {"weight_decay": 0.1}),
    "adamp, nesterov": ("adamp:lr=0.01,delta=0.3,wd_ratio=0.5,nesterov=true", {"delta": 0.3, "nesterov": True}),
    "sgdp": ("sgdp:lr=0.01,weight_decay=0.1", {"momentum": 0.9, "weight_decay": 0.1}),
    "sgdp, nesterov": (
        "sgdp:lr=0.01,momentum=0.5,dampening=0.2,nesterov=true",
        {"momentum": 0.5, "dampening": 0.2, "nesterov": True},
    ),
    "rad, fixed": ("rad:lr=0.01,zeta=1e-16,weight_decay=0.1", {"weight_decay": 0.1}),
    "rad": ("rad:lr=0.01,zeta_cap=0,delta=2.5", {"zeta": None, "max_iter": STEPS, "delta": 2.5}),
    "rad, order 2": ("rad:lr=0.01,zeta=0.01,order=2", {"zeta": 0.01, "order": 2}),
}
"""Name -> our text, and the published class's arguments beside lr."""


def weights(dtype: torch.dtype) -> list[Parameter]:
    """One tensor of each shape, and one of zeros."""
    drawn = [torch.sin(1.3 + 2.1 * torch.arange(torch.Size(s).numel(), dtype=torch.float64)).view(s) for s in SHAPES]
    return [Parameter(t.to(dtype).contiguous()) for t in (*drawn, torch.zeros(4, 6, dtype=torch.float64))]


def pull(weight: Tensor, which: int, step: int) -> Tensor:
    """A gradient of size 1, 0.1 or 0.01; at every other step at right angles to each row of the weight."""
    i = torch.arange(weight.numel(), dtype=torch.float64)
    drawn = torch.cos(1.7 * i * i + 0.9 * (which + 1) * step).view(weight.shape) * 10.0 ** -(step % 3)
    if step % 2 and weight.ndim > 1:
        row, gradient = (t.double().reshape(len(weight), -1) for t in (weight, drawn))
        along = (row * gradient).sum(1, keepdim=True) / row.square().sum(1, keepdim=True).clamp_min(1e-12)
        drawn = (gradient - along * row).view(weight.shape)
    return drawn.to(weight.dtype)


def walk(made: torch.optim.Optimizer, parameters: list[Parameter], steps: int = STEPS) -> list[Tensor]:
    for step in range(steps):
        for which, parameter in enumerate(parameters):
            parameter.grad = pull(parameter.detach(), which, step)
        made.step()
    return [parameter.detach() for parameter in parameters]


def ours(case: str, parameters: list[Parameter]) -> torch.optim.Optimizer:
    """Our optimizer, with its decay on vectors, too, as the published ones have it."""
    spec = rooms.parse("optimizers", CASES[case][0])
    tagged = [Tagged(f"{i:02}", parameter, "weight") for i, parameter in enumerate(parameters)]
    made = _seam.build(spec, tagged, steps=STEPS)
    for group in made.param_groups:
        group["weight_decay"] = spec.weight_decay
    return made


def theirs(case: str, parameters: list[Parameter]) -> torch.optim.Optimizer:
    """The published optimizer, with adamp 0.3.0 and pytorch-rad 0.2.1.

    Raises:
        ImportError: its package is not installed.
    """
    if case.startswith("rad"):
        from rad.optim.rad import RAD as cls
    else:
        import adamp

        cls = adamp.AdamP if case.startswith("adamp") else adamp.SGDP
    spec = rooms.parse("optimizers", CASES[case][0])
    extra = {"wd_ratio": spec.wd_ratio} if hasattr(spec, "wd_ratio") else {}
    return cls(parameters, lr=0.01, **extra, **CASES[case][1])


def check_figures(case: str) -> None:
    """Where ours ends is where the published optimizer ended, by the figures of the golden file."""
    parameters = weights(torch.float64)
    found = probes(walk(ours(case, parameters), parameters))
    assert found == [pytest.approx(row, abs=1e-9) for row in json.loads(GOLDEN.read_text(encoding="utf-8"))[case]]


def check_published(case: str, dtype: torch.dtype) -> None:
    """Ours and the published optimizer end at one place."""
    a, b = weights(dtype), weights(dtype)
    found, wanted = walk(ours(case, a), a), walk(theirs(case, b), b)
    for x, y in zip(found, wanted, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-6)


def golden(section: str) -> dict[str, Any]:
    """Figures of other people's code on three gradients."""
    return json.loads((GOLDEN.parent / "optimizers.json").read_text(encoding="utf-8"))[section]


def trajectory(spec: Any, *, role: str = "up") -> Tensor:
    """(3, 2, 3) where ``spec`` takes the golden stream's matrix."""
    stream, places = golden("optim_stream"), []
    p = Parameter(torch.tensor(stream["p0"], dtype=torch.float64))
    made = _seam.build(spec, [Tagged("p", p, role)], steps=10)
    for gradient in stream["grads"]:
        p.grad = torch.tensor(gradient, dtype=torch.float64)
        made.step()
        places.append(p.detach().clone())
    return torch.stack(places)


def probes(ends: list[Tensor]) -> list[list[float]]:
    """Two weighted sums of each tensor."""
    return [[float((t.double().flatten() * wave(t.numel())).sum()) for wave in (_sines, _cosines)] for t in ends]


def _sines(count: int) -> Tensor:
    return torch.sin(1.0 + torch.arange(count, dtype=torch.float64))


def _cosines(count: int) -> Tensor:
    return torch.cos(0.5 * torch.arange(count, dtype=torch.float64))


def write(make: Callable[[str, list[Parameter]], torch.optim.Optimizer]) -> None:
    found: dict[str, Any] = {}
    for case in CASES:
        parameters = weights(torch.float64)
        found[case] = [[round(value, 12) for value in row] for row in probes(walk(make(case, parameters), parameters))]
    about = (
        "adamp 0.3.0 and pytorch-rad 0.2.1 (PyPI), float64, torch 2.13.0 CPU; two sums of each tensor of tests/_walk.py"
    )
    lines = ",\n ".join(f"{json.dumps(case)}: {json.dumps(rows)}" for case, rows in found.items())
    GOLDEN.write_text(f'{{"_about": {json.dumps(about)},\n {lines}}}\n', encoding="utf-8")


if __name__ == "__main__":
    write(theirs)
