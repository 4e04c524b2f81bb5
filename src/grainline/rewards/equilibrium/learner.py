r"""A network that learns by equilibrium propagation: lessons in, weights out. What a reward head plugs in.

Each step, on some examples: rest freely; rest under each teaching signal; the difference is the error
(:mod:`.gradients`), which gives the gradient of every weight; homeostasis is added; Adam descends. Nothing is
differentiated through time, and with ``rule="points"`` no transpose of a weight is ever used.

Rows that do not come to rest teach nothing in that step. They are counted (:class:`Epoch`), and where they are the
majority of an epoch the learner gives up with :class:`~grainline.rewards.equilibrium.dynamics.NotSettled`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from grainline.rewards.equilibrium.contour import Teaching
from grainline.rewards.equilibrium.dynamics import Dynamics, NotSettled, Settled
from grainline.rewards.equilibrium.gradients import adjoint, estimate, exact, gradient, tied
from grainline.rewards.equilibrium.homeostasis import asymmetry_gradient, noisy_gradient
from grainline.rewards.equilibrium.lessons import Lesson
from grainline.rewards.equilibrium.network import Weights, Wiring, free, layered, random
from grainline.types import spec


@spec
class Settings:
    """A network, and how it learns. Numbers without a source are ours."""

    layers: tuple[int, ...] = Field(default=(32, 16), min_length=1)
    """Units of each layer; the last one is read out."""
    rule: Literal["points", "exact", "adjoint"] = "points"
    """The error: from nudged phases; their limit dr/dbeta; backpropagation's, for comparison."""
    teaching: Teaching = Teaching()
    """Points and strength of the teaching signal."""
    dynamics: Dynamics = Dynamics(tolerance=1e-7, strict=False)
    """How a network comes to rest."""
    angle: float = Field(default=90.0, ge=0, le=90)
    """Degrees between forward and feedback weights before learning."""
    tied: bool = False
    """Feedback weights are the forward weights; asks for angle=0."""
    homeostasis: float = Field(default=1.0, ge=0)
    """Weight of the homeostatic loss [official code: 1.0 in dense nets]."""
    draws: int = Field(default=0, ge=0)
    """Noise vectors a row for the homeostatic gradient [official code: 5]; 0: the closed form."""
    gain: float = Field(default=0.5, gt=0)
    """Standard deviation of recurrent weights before learning, times the root of their fan-in."""
    input_gain: float = Field(default=0.5, gt=0)
    """The same for input weights; features are thought of as standardised."""
    epochs: int = Field(default=40, ge=1)
    """Passes over the examples, at most."""
    patience: int = Field(default=5, ge=1)
    """Epochs without a lower held-out loss after which learning ends; without a held-out lesson it never does."""
    batch: int = Field(default=50, ge=1)
    """Examples a step."""
    lr: float = Field(default=2e-3, gt=0)
    """Adam's learning rate."""
    decay: float = Field(default=0.0, ge=0)
    """Weight decay of input and readout weights, decoupled, times the learning rate a step."""

    @model_validator(mode="after")
    def _tied_weights_begin_alike(self) -> Settings:
        if self.tied and self.angle != 0:
            raise ValueError("tied weights ask for angle=0")
        return self


class Epoch(NamedTuple):
    """What is known after a pass."""

    weights: Weights
    held: float  # mean loss of the held-out lesson; inf where some row of it does not rest, nan without one
    unsettled: float  # share of rows that did not come to rest while learning


class Fitted(NamedTuple):
    """What was learnt: the epoch of the lowest held-out loss, or the last one."""

    weights: Weights
    epochs: list[Epoch]


def fit(
    lesson: Lesson,
    settings: Settings,
    *,
    seed: int,
    held: Lesson | None = None,
    watch: Callable[[Epoch], Any] = lambda epoch: None,
) -> Fitted:
    """Learn ``lesson`` in double precision.

    Raises:
        NotSettled: most rows of an epoch did not come to rest, or no epoch saw all held-out rows at rest.
    """
    lesson, held = _double(lesson), _double(held) if held else None
    wiring, weights = start(lesson.features.shape[1], lesson.target.shape[1], settings, seed=seed)
    luck, optimizer = torch.Generator().manual_seed(seed), _adam(weights, settings)
    epochs: list[Epoch] = []
    best, since = None, 0
    while len(epochs) < settings.epochs and since < settings.patience:
        moving = sum(
            _step(optimizer, weights, wiring, lesson.take(which), settings, luck)
            for which in torch.randperm(len(lesson.target), generator=luck).split(settings.batch)
        )
        copied = Weights(*(part.clone() for part in weights))
        now = Epoch(copied, _held(copied, held, settings), moving / len(lesson.features))
        if now.unsettled > 0.5:
            raise NotSettled(
                f"{now.unsettled:.0%} of the rows of epoch {len(epochs) + 1} did not come to rest",
                instead="Take a smaller lr or gain, or let them take more steps (dynamics.most).",
            )
        epochs.append(now)
        watch(now)
        since += 1
        if best is None or not now.held >= best.held:  # nan, no held-out lesson: the last one is the best
            best, since = now, 0
    assert best is not None
    if best.held == math.inf:  # none is better than another
        raise NotSettled(
            "some row of the held-out lesson did not come to rest in any epoch",
            instead="Take a smaller lr or gain, or let them take more steps (dynamics.most).",
        )
    return Fitted(best.weights, epochs)


def start(features: int, outputs: int, settings: Settings, *, seed: int) -> tuple[Wiring, Weights]:
    """A network before learning."""
    wiring = layered(features, settings.layers, outputs, like=torch.zeros((), dtype=torch.float64))
    return wiring, random(wiring, angle=settings.angle, gain=settings.gain, input_gain=settings.input_gain, seed=seed)


def lesson_gradient(
    weights: Weights, wiring: Wiring, lesson: Lesson, settings: Settings, luck: torch.Generator
) -> tuple[Weights, Tensor]:
    """One step's gradient, homeostasis included, and which rows came to rest (B,); the others have no part in it."""
    dynamics = settings.dynamics
    rest = free(weights, lesson.features, dynamics)
    rate_BU = dynamics.rate(rest.state)
    even, weight_B = lesson.even()
    error_BU, heard_B = _error(weights, even, rest, settings)
    felt_BA = even.slope(weights.outputs(rate_BU))
    # A pair counts once, not half a time a row.
    counts_B1 = weight_B[:, None] * len(lesson.features) / len(lesson.target)
    error_BU, felt_BA = (torch.where(heard_B[:, None], counts_B1 * part, 0.0) for part in (error_BU, felt_BA))
    found = gradient(wiring, lesson.features, rate_BU, error_BU, felt_BA)
    if settings.tied:
        return tied(found), heard_B
    skew_UU = (
        noisy_gradient(weights, rate_BU, draws=settings.draws, luck=luck)
        if settings.draws
        else asymmetry_gradient(weights)
    )
    return found._replace(recurrent=found.recurrent + settings.homeostasis * skew_UU * wiring.recurrent), heard_B


def predict(weights: Weights, features_ND: Tensor, dynamics: Dynamics) -> Tensor:
    """(N, A) outputs of the free phase; NaN in rows that do not come to rest, or an error if ``dynamics.strict``."""
    rest = free(weights, features_ND.to(weights.bias.dtype), dynamics)
    outputs_NA = weights.outputs(dynamics.rate(rest.state))
    return torch.where(rest.at_rest(dynamics)[:, None], outputs_NA, torch.nan)


def _error(weights: Weights, lesson: Lesson, rest: Settled, settings: Settings) -> tuple[Tensor, Tensor]:
    """(B, U) by the chosen rule, and (B,) which rows came to rest in every phase."""
    dynamics, at_rest_B = settings.dynamics, rest.at_rest(settings.dynamics)
    if settings.rule != "points":
        solve = exact if settings.rule == "exact" else adjoint
        return solve(weights, lesson.slope, rest, dynamics), at_rest_B
    found = estimate(weights, lesson.features, lesson.slope, rest, settings.teaching, dynamics)
    return found.error, at_rest_B & (found.residual <= dynamics.tolerance)


def _step(optimizer: torch.optim.Optimizer, weights: Weights, *taught: Any) -> int:
    """One step; how many rows did not come to rest."""
    found, heard_B = lesson_gradient(weights, *taught)
    for part, its_gradient in zip(weights, found, strict=True):
        part.grad = its_gradient
    optimizer.step()
    return int((~heard_B).sum())


def _adam(weights: Weights, settings: Settings) -> torch.optim.Optimizer:
    decayed = {"params": [weights.input, weights.readout], "weight_decay": settings.decay}
    others = {"params": [weights.recurrent, weights.bias, weights.offset], "weight_decay": 0.0}
    return torch.optim.AdamW([decayed, others], lr=settings.lr)


def _held(weights: Weights, held: Lesson | None, settings: Settings) -> float:
    if held is None:
        return math.nan
    loss = float(held.value(predict(weights, held.features, settings.dynamics)))
    return math.inf if math.isnan(loss) else loss


def _double(lesson: Lesson) -> Lesson:
    return lesson._replace(**{name: getattr(lesson, name).double() for name in ("features", "target", "weight")})


class Head(nn.Module):
    """Learnt weights as a module: features (N, D) -> outputs (N, A). ``shape`` is what builds it again."""

    def __init__(
        self, features: int, outputs: int, layers: Sequence[int], activation: Any = "logistic", tolerance: float = 1e-7
    ) -> None:
        super().__init__()
        self.shape = {"features": features, "outputs": outputs, "layers": list(layers)}
        self.shape |= {"activation": activation, "tolerance": tolerance}
        self.dynamics = Dynamics(activation=activation, tolerance=tolerance, strict=False)
        like = layered(features, layers, outputs, like=torch.zeros((), dtype=torch.float64))
        self.weights = nn.ParameterDict({name: nn.Parameter(part, False) for name, part in like._asdict().items()})

    @classmethod
    def of(cls, weights: Weights, settings: Settings) -> Head:
        """A head with these weights."""
        dynamics = settings.dynamics
        made = cls(
            weights.input.shape[1], len(weights.offset), settings.layers, dynamics.activation, dynamics.tolerance
        )
        made.load_state_dict({f"weights.{name}": part for name, part in weights._asdict().items()})
        return made

    def forward(self, features_ND: Tensor) -> Tensor:
        return predict(Weights(**self.weights), features_ND, self.dynamics)
