r"""How a reward head learns: lessons, losses, the learner by backpropagation, members on prompt-grouped folds.

**A learner** is a function ``fit(taught, held, loss, seed) -> Module``; the module maps (n, D) standardised features
to (n, A) latent scores and says in ``shape`` what it needs to be built again. Lessons, folds, calibration and files are
not its concern, so another way to learn is one more entry of :data:`LEARNERS`.

A head has several members. Each is taught on all prompts but those of one fold, and stops where the loss on that fold
is lowest. What each member says of the fold it has not seen calibrates the head and says how good it is; the standard
deviation between members is its spread. (Cross-fitting: no row is set aside for good. Members share most of their
lessons, so the spread is too small where all are wrong alike.)

Losses, all means by weight over rows and aspects, f the latent score and r the target from 0 to 1:

==============  =====================================================================================================
``likelihood``  -r log sigma(f) - (1 - r) log sigma(-f); a graded r counts as a share of judges
``squares``     (f - r)^2
``ordinal``     the mean over levels k of the likelihood of [r > k] under sigma(f - theta_k); theta from how often
                each level is passed, so f = 0 is the data's average (proportional odds, McCullagh 1980)
``pairs``       -log sigma(f_chosen - f_rejected) (Bradley and Terry 1952); rows are all chosen, then all rejected
==============  =====================================================================================================
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from grainline import atomic, rooms
from grainline.errors import DataError, RunError, SpecError, nearest
from grainline.rewards import equilibrium as ep
from grainline.rewards._parts import Platt, platt
from grainline.types import spec

LossName = Literal["likelihood", "squares", "ordinal", "pairs"]
DECAYS = tuple(10.0 ** (-n / 2) for n in range(-2, 9))
"""Weight decay, strongest first: 10 to 0.0001, on standardised features and a mean loss."""
PATIENCE = 2
"""Decays without a better held loss after which the path ends."""


class Lesson(NamedTuple):
    """Rows to learn from. For the loss ``pairs`` the first half are the chosen ones, the second the rejected."""

    features: Tensor  # (N, D) standardised
    target: Tensor  # (N, A) from 0, wrong, to 1, right; anything where the weight is 0
    weight: Tensor  # (N, A) >= 0; 0 where nobody judged


class Loss(NamedTuple):
    """What is minimised, and how a latent score is read."""

    name: LossName
    thresholds: Tensor | None = None  # (A, K - 1) of ``ordinal``
    levels: Tensor | None = None  # (K - 1,) what a target must be above

    def __call__(self, latent_NA: Tensor, lesson: Lesson) -> Tensor:
        """The mean loss, a scalar."""
        target_NA, weight_NA = lesson.target, lesson.weight
        if self.name == "pairs":
            chosen, rejected = latent_NA.chunk(2)
            weight_NA = weight_NA.chunk(2)[0]
            value_NA = -F.logsigmoid(chosen - rejected)
        elif self.name == "squares":
            value_NA = (latent_NA - target_NA) ** 2
        elif self.name == "ordinal":
            assert self.levels is not None
            above_NAK = (target_NA[..., None] > self.levels).to(latent_NA.dtype)
            value_NA = _likelihood(self._passed(latent_NA), above_NAK).mean(-1)
        else:
            value_NA = _likelihood(latent_NA, target_NA)
        return (weight_NA * value_NA).sum() / weight_NA.sum().clamp(min=1e-12)

    def log_odds(self, latent_NA: Tensor) -> Tensor:
        """What the latent score says, as log odds of being right: what is calibrated."""
        if self.name == "squares":
            return torch.logit(latent_NA, eps=1e-3)
        return torch.logit(self._passed(latent_NA).sigmoid().mean(-1), 1e-6) if self.name == "ordinal" else latent_NA

    def _passed(self, latent_NA: Tensor) -> Tensor:
        """(N, A, K - 1) log odds of each level."""
        assert self.thresholds is not None
        return latent_NA[..., None] - self.thresholds


def loss(name: LossName, lesson: Lesson) -> Loss:
    """The loss of that name for these data; ``ordinal`` reads its levels off them.

    Raises:
        DataError: there is one level only.
    """
    if name != "ordinal":
        return Loss(name)
    judged_NA = lesson.weight > 0
    levels = lesson.target[judged_NA].unique()[:-1]
    if not len(levels):
        raise DataError("all is judged alike: there are no levels to tell apart.", where="loss ordinal")
    passed_AK = torch.stack([(judged_NA & (lesson.target > level)).sum(0) for level in levels], -1)
    share_AK = (passed_AK + 0.5) / (judged_NA.sum(0)[:, None] + 1)
    return Loss(name, -torch.logit(share_AK), levels)


Learner = Callable[[Lesson, Lesson, Loss, int], nn.Module]
"""``fit(taught, held, loss, seed) -> Module``."""


@spec
class Descent:
    """How a linear head is taught by backpropagation."""

    steps: int = Field(40, ge=1)
    """Iterations of L-BFGS at each weight decay."""


class Linear(nn.Module):
    """One weight a feature and aspect. It begins by saying nothing."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.shape = {"features": features, "outputs": outputs}
        self.weight = nn.Parameter(torch.zeros(outputs, features))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, features_ND: Tensor) -> Tensor:
        return F.linear(features_ND, self.weight, self.bias)


def backprop(taught: Lesson, held: Lesson, loss: Loss, seed: int, options: Descent | None = None) -> nn.Module:
    """A linear map by L-BFGS on all rows at once, down a path of ever weaker weight decay, stopped where the held loss
    is lowest.

    The loss is loss + decay / 2 * |W|^2; each decay of :data:`DECAYS` starts where the one before it ended. There is
    one optimum a decay, so ``seed`` decides nothing. (A hidden layer was tried: no better on the data of
    docs/rewards/head.md.)
    """
    steps = (options or Descent()).steps
    network = Linear(taught.features.shape[1], taught.target.shape[1])
    best, least, worse = copy.deepcopy(network.state_dict()), float("inf"), 0
    for decay in DECAYS:
        _descend(network, taught, loss, decay, steps)
        with torch.no_grad():
            now = float(loss(network(held.features), held))
        if now < least:
            best, least, worse = copy.deepcopy(network.state_dict()), now, 0
        elif (worse := worse + 1) == PATIENCE:
            break
    network.load_state_dict(best)
    return network.eval()


def _descend(network: Linear, taught: Lesson, loss: Loss, decay: float, steps: int) -> None:
    optimizer = torch.optim.LBFGS(network.parameters(), max_iter=steps, line_search_fn="strong_wolfe")

    def penalised() -> Tensor:
        optimizer.zero_grad()
        value = loss(network(taught.features), taught) + decay / 2 * (network.weight**2).sum()
        value.backward()
        return value

    optimizer.step(penalised)


def equilibrium(taught: Lesson, held: Lesson, loss: Loss, seed: int, options: ep.Settings | None = None) -> nn.Module:
    """A recurrent network that comes to rest, taught by equilibrium propagation. It says NaN of a piece on which it
    does not settle."""

    def lesson(of: Lesson) -> ep.Lesson:
        if loss.name == "pairs":
            target, weight = torch.ones_like(of.target.chunk(2)[0]), of.weight.chunk(2)[0]
            return ep.Lesson.of(ep.LIKELIHOOD, of.features, target, weight, paired=True)
        kind = ep.SQUARES if loss.name == "squares" else ep.LIKELIHOOD
        if loss.thresholds is not None and loss.levels is not None:
            kind = ep.ordinal(loss.thresholds.double(), loss.levels.double())
        return ep.Lesson.of(kind, of.features, of.target, of.weight)

    settings = options or ep.Settings()
    fitted = ep.fit(lesson(taught), settings, seed=seed, held=lesson(held))
    return ep.Head.of(fitted.weights, settings).eval()


class Way(NamedTuple):
    """A way to learn."""

    fit: Callable[..., nn.Module]  # (taught, held, loss, seed, options)
    options: type  # a spec
    module: Callable[..., nn.Module]  # what was fitted, built again from its ``shape``


LEARNERS = {
    "backprop": Way(backprop, Descent, Linear),
    "equilibrium": Way(equilibrium, ep.Settings, ep.Head),
}


def learner(name: str, options: Mapping[str, Any]) -> Learner:
    """The learner of that name with these options.

    Raises:
        SpecError: there is none, or it does not take such an option.
    """
    if name not in LEARNERS:
        raise SpecError(f"no way to learn {name!r}.", where="learning", instead=nearest(name, LEARNERS))
    way = LEARNERS[name]
    return functools.partial(way.fit, options=rooms.made(f"learning {name}", way.options, options))


class Scale(NamedTuple):
    """Standardises features."""

    mean: Tensor  # (D,)
    deviation: Tensor  # (D,)

    @classmethod
    def of(cls, features_ND: Tensor) -> Scale:
        return cls(features_ND.mean(0), features_ND.std(0).clamp(min=1e-6))

    def __call__(self, features_ND: Tensor) -> Tensor:
        return (features_ND - self.mean) / self.deviation


def folds(groups: Sequence[Any], count: int, seed: int) -> Tensor:
    """(N,) the fold of each row: rows of one group together, groups dealt out in an order of luck."""
    names = list(dict.fromkeys(groups))
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    place = {names[i]: n % count for n, i in enumerate(order)}
    return torch.tensor([place[group] for group in groups])


class Taught(NamedTuple):
    """Members, and what each said of the rows it had not seen."""

    members: list[nn.Module]
    unseen_NA: Tensor  # latent scores


def teach(lesson: Lesson, fold_N: Tensor, loss: Loss, fit: Learner, *, seed: int) -> Taught:
    """One member for each fold: taught without it, stopped by it."""
    members, unseen = [], torch.zeros_like(lesson.target)
    for k in range(int(fold_N.max()) + 1):
        held_N = fold_N == k
        member = fit(_rows(lesson, ~held_N), _rows(lesson, held_N), loss, seed + k)
        with torch.no_grad():
            unseen[held_N] = member(lesson.features[held_N]).to(unseen.dtype)
        members.append(member)
    return Taught(members, unseen)


def _rows(lesson: Lesson, which_N: Tensor) -> Lesson:
    return Lesson(*(part[which_N] for part in lesson))


def _likelihood(latent: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(latent, target, reduction="none")


# --------------------------------------------------------------------------------------------------- a head on disk


class Trained(NamedTuple):
    """A head: what makes scores of features."""

    scale: Scale
    loss: Loss
    members: list[nn.Module]
    calibration: tuple[Platt, ...]  # of each aspect

    def __call__(self, features_SD: Tensor) -> Tensor:
        """(members, S, A) from 0, wrong, to 1, right; strengths in nats, without bounds, of a head taught on pairs."""
        slope_A, offset_A = torch.tensor([tuple(platt) for platt in self.calibration]).T
        with torch.no_grad():
            latent_MSA = torch.stack([member(self.scale(features_SD)).float() for member in self.members])
            said_MSA = slope_A * self.loss.log_odds(latent_MSA) + offset_A
        return said_MSA if self.loss.name == "pairs" else said_MSA.sigmoid()


def calibrated(loss: Loss, unseen_NA: Tensor, lesson: Lesson) -> tuple[Platt, ...]:
    """Each aspect's calibration on what was said of rows not seen."""
    said_NA = loss.log_odds(unseen_NA.nan_to_num())
    weight_NA = lesson.weight * unseen_NA.isfinite()  # a member may be silent
    if loss.name == "pairs":
        chosen, rejected = said_NA.chunk(2)
        apart, weight = (chosen - rejected)[:, 0], weight_NA.chunk(2)[0][:, 0]
        both = torch.cat([apart, -apart]).tolist(), [1.0] * len(apart) + [0.0] * len(apart)
        return (Platt(platt(*both, weight.repeat(2).tolist()).slope, 0.0),)
    return tuple(
        platt(said_NA[:, a].tolist(), lesson.target[:, a].tolist(), weight_NA[:, a].tolist())
        for a in range(said_NA.shape[1])
    )


def save(folder: Path, trained: Trained, facts: Mapping[str, Any]) -> dict[str, Any]:
    """``head.safetensors`` and ``head.json``, the whole folder or nothing; an older one is replaced. What the latter
    says."""
    from safetensors.torch import save_file

    tensors = {"mean": trained.scale.mean, "deviation": trained.scale.deviation}
    if trained.loss.thresholds is not None and trained.loss.levels is not None:
        tensors |= {"thresholds": trained.loss.thresholds, "levels": trained.loss.levels}
    for k, member in enumerate(trained.members):
        tensors |= {f"member.{k}.{name}": tensor for name, tensor in member.state_dict().items()}
    told = {
        **facts,
        "loss": trained.loss.name,
        "members": len(trained.members),
        "shape": trained.members[0].shape,
        "calibration": [list(platt) for platt in trained.calibration],
    }
    with atomic.folder(folder) as made:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, made / "head.safetensors")
        (made / "head.json").write_text(json.dumps(told, indent=1, default=str), encoding="utf-8")
    return told


def load(folder: Path, facts: Mapping[str, Any]) -> Trained:
    """The head of ``folder``, whose ``head.json`` holds ``facts``.

    Raises:
        RunError: its tensors are missing, damaged or of another head.
    """
    from safetensors.torch import load_file

    try:
        held = load_file(folder / "head.safetensors")
        make = LEARNERS[facts["learning"]].module
        members = []
        for k in range(facts["members"]):
            member = make(**facts["shape"])
            own = f"member.{k}."
            member.load_state_dict({n.removeprefix(own): t for n, t in held.items() if n.startswith(own)})
            members.append(member.eval())
        loss = Loss(facts["loss"], held.get("thresholds"), held.get("levels"))
        calibration = tuple(Platt(*platt) for platt in facts["calibration"])
        return Trained(Scale(held["mean"], held["deviation"]), loss, members, calibration)
    except Exception as error:
        raise RunError(f"the head cannot be read: {error}.", where=str(folder), instead="Train it again.") from error
