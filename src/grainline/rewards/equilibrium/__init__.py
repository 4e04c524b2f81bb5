r"""Generalised holomorphic equilibrium propagation with Jacobian homeostasis, on any tensors.

Laborieux and Zenke, ICLR 2024, arXiv:2309.02214. Marks in this package: [paper] and [official code] are the authors'
(github.com/Laborieux-Axel/generalized-holo-ep, 30592f5); [secondary] is their poster; what is [inferred] or called ours
is ours. ::

    dynamics      activations; how a network comes to rest
    network       W, V, b and the readout; the free phase and the nudged ones
    contour       N teaching signals on a circle -> a derivative
    gradients     the error of every unit, estimated or true, and the gradient that follows
    homeostasis   the loss that makes the Jacobian symmetric
    measures      angles and distances
    lessons       targets and holomorphic losses
    learner       all of it, in a loop

Every function is pure and takes its weights, so a figure of the paper is a dozen lines::

    from grainline.rewards import equilibrium as ep

    wiring = ep.layered(64, (32, 32, 10), 10, like=features)
    weights = ep.random(wiring, angle=45, seed=0)
    lesson = ep.Lesson.of(ep.CROSS_ENTROPY, features, one_hot)
    rest = ep.free(weights, features, ep.Dynamics())
    found = ep.estimate(weights, features, lesson.slope, rest, ep.Teaching(points=4, radius=0.5), ep.Dynamics())
    ep.cosine(found.error, ep.adjoint(weights, lesson.slope, rest, ep.Dynamics()))
"""

from grainline.rewards.equilibrium.contour import Circle, Teaching, circle, derivative, excess
from grainline.rewards.equilibrium.dynamics import ACTIVATIONS, Dynamics, NotSettled, Settled, dsilu, logistic, settle
from grainline.rewards.equilibrium.gradients import Estimate, adjoint, estimate, exact, gradient, tied
from grainline.rewards.equilibrium.homeostasis import asymmetry, asymmetry_gradient, noisy, noisy_gradient
from grainline.rewards.equilibrium.learner import Epoch, Fitted, Head, Settings, fit, lesson_gradient, predict, start
from grainline.rewards.equilibrium.lessons import CROSS_ENTROPY, LIKELIHOOD, SQUARES, Kind, Lesson, ordinal
from grainline.rewards.equilibrium.measures import angle, cosine, distance, symmetry
from grainline.rewards.equilibrium.network import (
    Weights,
    Wiring,
    drive,
    field,
    free,
    layered,
    nudged,
    random,
)

__all__ = [
    "ACTIVATIONS",
    "CROSS_ENTROPY",
    "LIKELIHOOD",
    "SQUARES",
    "Circle",
    "Dynamics",
    "Epoch",
    "Estimate",
    "Fitted",
    "Head",
    "Kind",
    "Lesson",
    "NotSettled",
    "Settings",
    "Settled",
    "Teaching",
    "Weights",
    "Wiring",
    "adjoint",
    "angle",
    "asymmetry",
    "asymmetry_gradient",
    "circle",
    "cosine",
    "derivative",
    "distance",
    "drive",
    "dsilu",
    "estimate",
    "exact",
    "excess",
    "field",
    "fit",
    "free",
    "gradient",
    "layered",
    "lesson_gradient",
    "logistic",
    "noisy",
    "noisy_gradient",
    "nudged",
    "ordinal",
    "predict",
    "random",
    "settle",
    "start",
    "symmetry",
    "tied",
]
