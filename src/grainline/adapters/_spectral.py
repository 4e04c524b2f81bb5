"""Singular values and vectors of frozen weights: decomposed in float32 or better, signs fixed.

.. math:: W = U\\,\\mathrm{diag}(S)\\,V^T, \\qquad S_1 \\ge \\dots \\ge S_n,\\ n = \\min(\\mathrm{out}, \\mathrm{in})

U and V are unique up to a common sign of each pair of columns (and up to a rotation where singular values coincide):
here the entry of largest magnitude in each column of U is positive. Adapters that are relative to U and V store them;
nobody decomposes at loading.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from grainline import atomic
from grainline.adapters._frozen import Frozen
from grainline.adapters._parts import unwrapped
from grainline.places import cache_dir


class SpectralFactors(NamedTuple):
    """The leading k singular values and vectors."""

    U_OK: Tensor  # orthonormal columns
    S_K: Tensor  # falling
    V_IK: Tensor  # orthonormal columns


def singular_values(weight_OI: Tensor) -> Tensor:
    """All singular values, falling, in float64; kept on disk like :func:`factors`.

    From the smaller Gram matrix: several times faster than a decomposition. Squaring costs precision only in values
    below 1e-7 of the largest.
    """

    def found() -> dict[str, Tensor]:
        weight = weight_OI.detach().to(torch.float64)
        gram = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
        return {"S": torch.linalg.eigvalsh(gram).flip(0).clamp(min=0).sqrt()}

    return _kept(weight_OI.detach(), "values", found)["S"]


def factors(weight_OI: Tensor, rank: int | None = None, *, randomised: bool = False) -> SpectralFactors:
    """The leading ``rank`` factors (None: all).

    ``randomised`` finds them with four power iterations instead of a full decomposition: much faster for small ranks,
    and as exact as the gap behind the last of them is wide. What is found of a large matrix is kept on disk, addressed
    by its bytes, where it is small beside the matrix itself.
    """
    weight = weight_OI.detach()
    weight = weight if weight.dtype == torch.float64 else weight.to(torch.float32)
    least = min(weight.shape)
    rank = least if rank is None else min(rank, least)

    def found() -> dict[str, Tensor]:
        return dict(zip("USV", _decomposed(weight, rank, randomised), strict=True))

    small = 2 * rank * sum(weight.shape) <= weight.numel()
    parts = _kept(weight, f"{rank} {randomised}", found) if small else found()
    return SpectralFactors(*(parts[letter] for letter in "USV"))


_LARGE = 2**16
"""Elements of a matrix of which it is worth a file what was found."""


def _kept(weight: Tensor, what: str, found: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """``what`` was ``found`` of a weight: read from disk, where it is or is put then."""
    if weight.numel() < _LARGE:
        return found()
    digest = hashlib.sha256(f"{tuple(weight.shape)} {weight.dtype} {what}".encode())
    digest.update(weight.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    file = cache_dir() / "spectral" / f"{digest.hexdigest()}.safetensors"
    try:
        return {letter: part.to(weight.device) for letter, part in load_file(file).items()}
    except (OSError, SafetensorError):  # nothing there, or nothing that can be read
        made = found()
    with atomic.file(file) as temporary:
        save_file({letter: part.cpu() for letter, part in made.items()}, temporary)
    return made


def _decomposed(weight: Tensor, rank: int, randomised: bool) -> SpectralFactors:
    if randomised and rank < min(weight.shape):
        with torch.random.fork_rng(devices=[]):  # one generator, and so one device: the same factors everywhere
            torch.default_generator.manual_seed(0)
            found = torch.svd_lowrank(weight.cpu(), q=min(rank + 8, *weight.shape), niter=4)
        U, S, V = (part.to(weight.device) for part in found)
    else:
        U, S, Vt = torch.linalg.svd(weight, full_matrices=False)
        V = Vt.T
    return _signed(SpectralFactors(U[:, :rank], S[:rank], V[:, :rank]))


def _signed(found: SpectralFactors) -> SpectralFactors:
    largest = found.U_OK.abs().argmax(dim=0, keepdim=True)
    sign = found.U_OK.gather(0, largest).sign()
    return SpectralFactors((found.U_OK * sign).contiguous(), found.S_K.contiguous(), (found.V_IK * sign).contiguous())


def rank_reaching(values_N: Tensor, share: float, *, strictly_below: bool = False) -> int:
    """How many leading singular values it takes for their sum to reach ``share`` of the sum of all; at least 1.

    ``strictly_below`` counts those before the share is reached instead.
    """
    reached = values_N.cumsum(0) / values_N.sum()
    below = int((reached < share).sum())
    return max(1, min(len(values_N), below + (0 if strictly_below else 1)))


def ranks(
    model: nn.Module, names: Iterable[str], share: float, *, strictly_below: bool = False, most: int | None = None
) -> dict[str, int]:
    """:func:`rank_reaching` of each named module, at most ``most``. A module without weights (on the meta device) is
    taken for a random matrix."""
    found = {}
    for name in names:
        layer = Frozen(unwrapped(model).get_submodule(name))
        empty = layer.device.type == "meta"
        values = random_singular_values(layer.outputs, layer.fan_in) if empty else singular_values(layer.weight_OI)
        found[name] = min(rank_reaching(values, share, strictly_below=strictly_below), most or len(values))
    return found


def random_singular_values(outputs: int, inputs: int) -> Tensor:
    """What a Gaussian matrix of this shape would have (up to a factor), for plans made without weights.

    Quantiles of the Marchenko-Pastur density. Trained weights are more peaked: they reach a share of the sum with
    fewer values.
    """
    count, ratio = min(outputs, inputs), min(outputs, inputs) / max(outputs, inputs)
    low, high = 1 - ratio**0.5, 1 + ratio**0.5
    value = torch.linspace(low, high, 20_001, dtype=torch.float64)[1:-1]
    density = ((high**2 - value**2) * (value**2 - low**2)).sqrt() / value
    reached = density.cumsum(0) / density.sum()
    middle = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return value[torch.searchsorted(reached, middle).clamp(max=len(value) - 1)].flip(0)
