"""A network of three units whose numbers were derived independently of the package.

sigma(u) = 1 / (1 + exp(-4 u + 2)), u <- W sigma(u) + b + beta dL/dr, L = (r_2 - 1)^2 / 2, 400 synchronous steps; W
is not symmetric. All numbers are given to ten decimals.
"""

from __future__ import annotations

import torch

from grainline.rewards import equilibrium as ep


def double(*numbers: object) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


WEIGHTS = ep.Weights(
    recurrent=double([0.0, 0.6, -0.3], [0.2, 0.0, 0.5], [-0.4, 0.7, 0.0]),
    input=torch.zeros(3, 1, dtype=torch.float64),
    bias=double(0.3, 0.4, 0.6),
    readout=double([0.0, 0.0, 1.0]),
    offset=double(0.0),
)
SYMMETRIC = WEIGHTS._replace(recurrent=(WEIGHTS.recurrent + WEIGHTS.recurrent.T) / 2)
WIRING = ep.Wiring(*(torch.ones_like(part) for part in WEIGHTS))
INPUTS = double([0.0])
LESSON = ep.Lesson.of(ep.SQUARES, INPUTS, double([1.0]))
DYNAMICS = ep.Dynamics(tolerance=1e-14)

STATE = double(0.5523180979, 0.9461684733, 0.9785399301)
RATE = double(0.5521279914, 0.8562730381, 0.87148575)
RESPONSE = double(0.0102464612, -0.0147529704, -0.0640361309)
"""dr/dbeta at beta = 0."""
DELTA = double(0.0222720958, -0.01548807, -0.0640361309)
"""The error of backpropagation."""
ESTIMATES = {
    (0.05, 1): (0.0106184392, -0.0153574887, -0.0665027385),
    (0.05, 2): (0.0102612775, -0.0147790879, -0.0641385692),
    (0.05, 4): (0.0102464942, -0.0147530355, -0.0640363732),
    (0.05, 6): (0.0102464613, -0.0147529706, -0.0640361315),
    (0.05, 8): (0.0102464612, -0.0147529704, -0.0640361309),
    (0.5, 1): (0.0166587041, -0.025827086, -0.1078974627),
    (0.5, 2): (0.0121807657, -0.0182850053, -0.0776605081),
    (0.5, 4): (0.0106050848, -0.0154702883, -0.0666902283),
    (0.5, 6): (0.0103373902, -0.0149475032, -0.0647349738),
    (0.5, 8): (0.0102728299, -0.0148123098, -0.0642447659),
}
"""(|beta|, N) -> the estimate of RESPONSE."""
RESPONSE_GRADIENT = double(
    [0.005657358, 0.0087737685, 0.0089296449],
    [-0.0081455279, -0.0126325708, -0.0128570035],
    [-0.0353561403, -0.0548324123, -0.0558065755],
)
TRUE_GRADIENT = double(
    [0.0122970475, 0.0190709952, 0.0194098142],
    [-0.008551397, -0.0132620168, -0.0134976323],
    [-0.0353561403, -0.0548324123, -0.0558065755],
)
"""dL/dW, by implicit differentiation and by autograd through the steps alike."""
ASYMMETRY = 0.07
SYMMETRY = 0.8646496437  # of W - I
COSINE = 0.9853059434  # of RESPONSE and DELTA
