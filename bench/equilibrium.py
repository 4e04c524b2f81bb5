"""Three figures of equilibrium propagation: the error of its estimate, what homeostasis mends, and learning by it.

    python bench/equilibrium.py learn    teaches 30 networks (half an hour of one core), to results/equilibrium.jsonl
    python bench/equilibrium.py          prints numbers and tables, and writes docs/assets/equilibrium_*.svg

Features are scikit-learn's digits; networks are 64-32-32-10, float64. In the first two figures weights are random. In
the third 1,400 images are learnt, 397 are not: 15 epochs in batches of 50, Adam's rate 2e-3, pixels from 0 to 1.
After Laborieux and Zenke, arXiv:2309.02214; networks, sizes and data here are ours.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from _plots import ON_ANY_PAGE
from matplotlib.axes import Axes
from sklearn.datasets import load_digits

from grainline.rewards import equilibrium as ep

ASSETS = Path(__file__).parents[1] / "docs" / "assets"
RESULTS = Path(__file__).parent / "results" / "equilibrium.jsonl"
POINTS = (1, 2, 4, 6)
RADII = (0.05, 0.1, 0.2, 0.3, 0.5)
ANGLES = (0, 15, 30, 45, 60, 75, 90)
SEEDS = range(5)
STUDENT = {3: 4.303, 4: 3.182, 5: 2.776}
"""Seeds -> the 97.5 % quantile of Student's t with one degree of freedom less."""
PAIR = ep.Teaching(points=2, radius=0.5)
WAYS: dict[str, dict[str, Any]] = {
    "backpropagation": {"rule": "adjoint", "homeostasis": 0.0},
    "exact response": {"rule": "exact", "homeostasis": 0.0},
    "exact response, symmetric at first": {"rule": "exact", "homeostasis": 0.0, "angle": 0.0},
    "exact response, homeostasis": {"rule": "exact", "homeostasis": 1.0},
    "N = 2, |beta| = 0.5": {"teaching": PAIR, "homeostasis": 0.0},
    "N = 2, |beta| = 0.5, homeostasis": {"teaching": PAIR, "homeostasis": 1.0},
}
"""How networks learn; feedback starts at 90 degrees where nothing is said."""
DRAWN = ("backpropagation", "exact response", "exact response, homeostasis")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("figures", "learn"), default="figures")
    if parser.parse_args().what == "learn":
        learn()
        return
    plt.rcParams |= ON_ANY_PAGE | {"svg.fonttype": "none", "svg.hashsalt": "equilibrium"}
    features, lesson = digits()
    figure_error(features, lesson)
    figure_angle(features, lesson)
    figure_learning(results())


# ----------------------------------------------------------------------------------------------- without learning


def digits(rows: int = 100) -> tuple[torch.Tensor, ep.Lesson]:
    data, target = load_digits(return_X_y=True)
    x = torch.tensor(data[:rows], dtype=torch.float64)
    x = (x - x.mean(0)) / x.std(0).clamp(min=1e-6)
    return x, ep.Lesson.of(ep.CROSS_ENTROPY, x, one_hot(target[:rows]))


def one_hot(target: Any) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(target), 10).double()


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


def figure_error(features: torch.Tensor, lesson: ep.Lesson) -> None:
    figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
    for n, mark in zip(POINTS, "osv^", strict=True):
        found = [distance(features, lesson, points=n, radius=radius) for radius in RADII]
        print(f"N={n}: " + "  ".join(f"|beta|={r}: {e:.1e}" for r, e in zip(RADII, found, strict=True)))
        axes.loglog(RADII, found, marker=mark, label=f"N = {n}")
    axes.set(xlabel="strength of the teaching signal |beta|", ylabel="relative error of dr/dbeta (L2)")
    axes.minorticks_off()
    axes.set_xticks(RADII, [str(radius) for radius in RADII])
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(ASSETS / "equilibrium_error.svg", metadata={"Date": None})


def cosine(features: torch.Tensor, lesson: ep.Lesson, *, angle: float, settled: int) -> float:
    """Between the exact response and backpropagation's error, after so many steps of homeostasis alone, of a size that
    halves the asymmetry."""
    weights = weights_at(features, angle)
    for _ in range(settled):
        half = len(weights.recurrent) / 8
        weights = weights._replace(recurrent=weights.recurrent - half * ep.asymmetry_gradient(weights))
    rest = ep.free(weights, features, STILL)
    return ep.cosine(ep.exact(weights, lesson.slope, rest, STILL), ep.adjoint(weights, lesson.slope, rest, STILL))


def figure_angle(features: torch.Tensor, lesson: ep.Lesson) -> None:
    figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
    kinds = (("without homeostasis", 0), ("after one step of it", 1), ("after three", 3))
    for (kind, settled), mark in zip(kinds, "osv", strict=True):
        found = [cosine(features, lesson, angle=angle, settled=settled) for angle in ANGLES]
        print(f"{kind}: " + "  ".join(f"{a} deg: {c:.3f}" for a, c in zip(ANGLES, found, strict=True)))
        axes.plot(ANGLES, found, marker=mark, label=kind)
    axes.set(xlabel="angle between forward and feedback weights, degrees", ylabel="cosine to backpropagation's error")
    axes.legend()
    figure.savefig(ASSETS / "equilibrium_angle.svg", metadata={"Date": None})


# ------------------------------------------------------------------------------------------------------- learning


def learn() -> None:
    """All ways and seeds that the results have not."""
    known = {(row["way"], row["seed"]) for row in results()}
    for seed, way in itertools.product(SEEDS, WAYS):
        if (way, seed) not in known:
            line = {"way": way, "seed": seed, "epochs": list(taught(WAYS[way], seed))}
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(way, seed, line["epochs"][-1], flush=True)


def taught(way: dict[str, Any], seed: int) -> Iterator[dict[str, float]]:
    """What is seen of a network after each epoch. A row that does not come to rest is wrong."""
    data, label = load_digits(return_X_y=True)
    order = np.random.RandomState(0).permutation(len(label))
    x, y = torch.tensor(data / 16)[order], torch.tensor(label)[order]
    lesson = ep.Lesson.of(ep.CROSS_ENTROPY, x[:1400], one_hot(label[order[:1400]]))
    probe = ep.Lesson.of(ep.CROSS_ENTROPY, x[1400:1464], one_hot(label[order[1400:1464]]))
    settings = ep.Settings(layers=(32, 32, 10), input_gain=1.0, epochs=15, batch=50, lr=2e-3, **way)
    dynamics = settings.dynamics
    for epoch in ep.fit(lesson, settings, seed=seed).epochs:
        outputs = ep.predict(epoch.weights, x[1400:], dynamics)
        rests = ~outputs.isnan().any(1)
        free = ep.free(epoch.weights, probe.features, dynamics)
        errors = (solve(epoch.weights, probe.slope, free, dynamics) for solve in (ep.exact, ep.adjoint))
        yield {
            "accuracy": float(((outputs.argmax(1) == y[1400:]) & rests).double().mean()),
            "restless": float((~rests).double().mean()),
            "angle": ep.angle(epoch.weights),
            "cosine": ep.cosine(*(error[free.at_rest(dynamics)] for error in errors)),
            "unsettled": epoch.unsettled,
        }


def results() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.open(encoding="utf-8")] if RESULTS.is_file() else []


def figure_learning(rows: list[dict[str, Any]]) -> None:
    """The table of last epochs, and accuracy and cosine over epochs: means of seeds, and their range as a band."""
    print("| learns by | accuracy | cosine | angle | never at rest |\n| --- | --- | --- | --- | --- |")
    for way in WAYS:
        last = [row["epochs"][-1] for row in rows if row["way"] == way]
        shown = (interval([epoch[key] for epoch in last]) for key in ("accuracy", "cosine", "angle", "restless"))
        formats = ("{:.3f} [{:.3f}, {:.3f}]", "{:.2f} [{:.2f}, {:.2f}]", "{:.0f} [{:.0f}, {:.0f}]", "{:.3f}")
        print(f"| {way} | " + " | ".join(f.format(*cell) for f, cell in zip(formats, shown, strict=True)) + " |")
    figure, both = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    for axes, key in zip(both, ("accuracy", "cosine"), strict=True):
        for way in DRAWN:
            curve(axes, [[epoch[key] for epoch in row["epochs"]] for row in rows if row["way"] == way], way)
    both[0].set(xlabel="epoch", ylabel="accuracy on digits not seen", ylim=(0, 1))
    both[1].set(xlabel="epoch", ylabel="cosine to backpropagation's error", ylim=(0, 1.02))
    figure.legend(*both[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(DRAWN))
    figure.savefig(ASSETS / "equilibrium_learning.svg", metadata={"Date": None})


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean over seeds, and 95 % of it by Student's t."""
    middle = statistics.fmean(values)
    half = STUDENT[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
    return middle, middle - half, middle + half


def curve(axes: Axes, runs: list[list[float]], label: str) -> None:
    found = np.array(runs)
    epochs = np.arange(1, found.shape[1] + 1)
    (line,) = axes.plot(epochs, found.mean(0), label=label)
    axes.fill_between(epochs, found.min(0), found.max(0), color=line.get_color(), alpha=0.2, linewidth=0)


if __name__ == "__main__":
    main()
