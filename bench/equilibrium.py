"""The two figures that equilibrium propagation is about: the error of its estimate, and what homeostasis mends.

    python bench/equilibrium.py     prints the numbers and writes docs/assets/equilibrium_*.svg

Features are scikit-learn's digits, standardised; a network 64-32-32-10 with random weights (nothing is learnt in the
first figure), float64. After Laborieux and Zenke, arXiv:2309.02214; networks, sizes and data here are ours.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits

from grainline.rewards import equilibrium as ep

ASSETS = Path(__file__).parents[1] / "docs" / "assets"
POINTS = (1, 2, 4, 6)
RADII = (0.05, 0.1, 0.2, 0.3, 0.5)
ANGLES = (0, 15, 30, 45, 60, 75, 90)


def main() -> None:
    features, lesson = digits()
    errors = {n: [distance(features, lesson, points=n, radius=r) for r in RADII] for n in POINTS}
    for n, found in errors.items():
        print(f"N={n}: " + "  ".join(f"|beta|={r}: {e:.1e}" for r, e in zip(RADII, found, strict=True)))
    cosines = {
        kind: [cosine(features, lesson, angle=a, settled=steps) for a in ANGLES]
        for kind, steps in (("without homeostasis", 0), ("after one step of it", 1), ("after three", 3))
    }
    for kind, found in cosines.items():
        print(f"{kind}: " + "  ".join(f"{a} deg: {c:.3f}" for a, c in zip(ANGLES, found, strict=True)))
    plt.rcParams |= {"svg.fonttype": "none", "figure.facecolor": "white"}
    figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
    for (n, found), mark in zip(errors.items(), "osv^", strict=True):
        axes.loglog(RADII, found, marker=mark, label=f"N = {n}")
    axes.set(xlabel="strength of the teaching signal |beta|", ylabel="relative error of dr/dbeta (L2)")
    axes.minorticks_off()
    axes.set_xticks(RADII, [str(radius) for radius in RADII])
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(ASSETS / "equilibrium_error.svg", metadata={"Date": None})
    figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
    for (kind, found), mark in zip(cosines.items(), "osv", strict=True):
        axes.plot(ANGLES, found, marker=mark, label=kind)
    axes.set(xlabel="angle between forward and feedback weights, degrees", ylabel="cosine to backpropagation's error")
    axes.legend()
    figure.savefig(ASSETS / "equilibrium_angle.svg", metadata={"Date": None})


def digits(rows: int = 100) -> tuple[torch.Tensor, ep.Lesson]:
    data, target = load_digits(return_X_y=True)
    x = torch.tensor(data[:rows], dtype=torch.float64)
    x = (x - x.mean(0)) / x.std(0).clamp(min=1e-6)
    hot = torch.nn.functional.one_hot(torch.tensor(target[:rows]), 10).double()
    lesson = ep.Lesson.of(ep.CROSS_ENTROPY, x, hot)
    # Lessons take the mean over outputs. The usual cross-entropy is the sum over classes, and |beta| is in its unit.
    return x, lesson._replace(weight=torch.ones_like(hot))


def weights_at(features: torch.Tensor, angle: float) -> ep.Weights:
    return ep.random(ep.layered(64, (32, 32, 10), 10, like=features), angle=angle, seed=0)


STILL = ep.Dynamics(tolerance=1e-12, most=5000)


def distance(features: torch.Tensor, lesson: ep.Lesson, *, points: int, radius: float) -> float:
    """How far the estimate with N points is from the exact response of the network."""
    weights = weights_at(features, 45)
    rest = ep.free(weights, features, STILL)
    teaching = ep.Teaching(points=points, radius=radius)
    found = ep.estimate(weights, features, lesson.slope, rest, teaching, STILL).error
    return ep.distance(found, ep.exact(weights, lesson.slope, rest, STILL))


def cosine(features: torch.Tensor, lesson: ep.Lesson, *, angle: float, settled: int) -> float:
    """Between the exact response and backpropagation's error, after so many steps of homeostasis alone, of a size that
    halves the asymmetry."""
    weights = weights_at(features, angle)
    for _ in range(settled):
        half = len(weights.recurrent) / 8
        weights = weights._replace(recurrent=weights.recurrent - half * ep.asymmetry_gradient(weights))
    rest = ep.free(weights, features, STILL)
    return ep.cosine(ep.exact(weights, lesson.slope, rest, STILL), ep.adjoint(weights, lesson.slope, rest, STILL))


if __name__ == "__main__":
    main()
