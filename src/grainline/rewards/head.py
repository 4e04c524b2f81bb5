r"""A small head on frozen features of a language model, taught by people's marks: piece by piece, aspect by aspect.

.. math:: P(\text{piece } s \text{ is right in aspect } a) = \sigma\bigl(\alpha_a\, f_a(x_s) + \gamma_a\bigr), \qquad
    x_s = h_{\text{last token of } s}

h are hidden states of a middle layer while the model reads prompt and answer (``features.py``), f is linear in
standardised features (or settles by itself: ``learning=equilibrium``), and alpha, gamma calibrate it on prompts that it
has not seen. Only f is trained: minutes on a laptop. As a probe of hidden states it stands in a long line (Alain and
Bengio 2016, arXiv:1610.01644); one score a piece and aspect is the design of fine-grained RLHF (Wu et al. 2023,
arXiv:2306.01693), whose three reward models are whole language models. Cross-fitted members, their spread and
calibration by Platt's rule are our composition.

A head is made by ``grainline reward train`` and is a folder: ``head.json`` says of what model, layers, aspects and
data it is, ``head.safetensors`` holds the numbers. Aspect "" is the mean of its aspects; an answer as a whole is the
mean of its sentences. A head taught on pairs has read whole answers: it has strengths in nats instead of probabilities,
no bounds, and compares by Bradley and Terry's model.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from grainline.errors import ModelError, RunError, SpecError, nearest
from grainline.rewards._parts import bradley_terry, higher, windows
from grainline.rewards._seam import Asked, Desk, Duel, Scores, wholes
from grainline.types import spec

if TYPE_CHECKING:
    from torch import Tensor

    from grainline.features import Features
    from grainline.rewards.head_torch import Trained

FORMAT = 1


@spec
class Head:
    paper: ClassVar[str] = "arXiv:1610.01644"
    needs: ClassVar[frozenset[str]] = frozenset({"model", "torch"})

    path: str = ""
    """The folder that ``grainline reward train`` wrote."""
    model: str = ""
    """Where the language model is now, if not where it was when the head was taught: folder, hub id or alias."""
    device: str = "auto"
    """Of the language model: auto, cpu, cuda, cuda:1, mps."""
    max_tokens: int = Field(4096, ge=1)
    """Tokens that are read at once; sets speed and memory."""

    @property
    def between(self) -> tuple[float, float] | None:
        return None if self.path and facts(self.path)["loss"] == "pairs" else (0.0, 1.0)

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.path,) if self.path else ()

    @contextlib.contextmanager
    def open(self, desk: Desk) -> Iterator[Judging]:
        from grainline import models
        from grainline.features import Features, Taken
        from grainline.rewards.head_torch import load

        told = facts(self.path)
        trained = load(Path(os.path.expanduser(self.path)), told)
        base = told["base"]
        name = self.model or base["name"]
        model = models.load(models.Choice(name, base["revision"], dtype=base["dtype"], device=self.device))
        taken = Taken(tuple(told["layers"]), told["pool"], self.max_tokens)
        features = Features(model, desk.folder / "features", taken)  # the job that asks shows the progress
        if features.fingerprint != base["fingerprint"]:
            raise ModelError(
                "these are not the weights that the head was taught on.",
                where=f"head {self.path}: model {name}",
                instead=f"Give the model as it was ({base['name']}), or train the head again.",
            )
        yield Judging(trained, features, told)


class Judging:
    """An opened head."""

    def __init__(self, trained: Trained, features: Features, told: Mapping[str, Any]) -> None:
        self._trained, self._features = trained, features
        self.aspects: tuple[str, ...] = tuple(told["aspects"])
        self._language = told["language"] if told["learn"] == "segments" else None
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
        self.facts: Mapping[str, Any] = {"base": told["base"], "head": digest}

    def score(self, asked: Iterable[Asked]) -> Iterator[Scores]:
        from grainline.features import Passage

        for window in windows(asked, lambda one: one.prompt):
            places = [self._places(one.aspects) for one in window]
            read = self._features([Passage(one.prompt, one.answer, self._pieces(one)) for one in window])
            for one, place, features in zip(window, places, read, strict=True):
                yield self._said(features, place, bool(one.segments)) if features is not None else _silent(one)

    def compare(self, duels: Iterable[Duel]) -> Iterator[float]:
        """By Bradley and Terry's model where the head was taught so, else the better score wins."""
        likely = bradley_terry if self._trained.loss.name == "pairs" else higher
        return itertools.starmap(likely, wholes(self, duels))

    def _pieces(self, one: Asked) -> tuple[tuple[int, int], ...]:
        """What is read of an answer: of a whole one its sentences, if it is sentences that the head was taught on."""
        from grainline.data.sentences import sentences

        if one.segments or self._language is None:
            return one.pieces
        return tuple(itertools.pairwise(sentences(one.answer, self._language))) or one.pieces

    def _places(self, wanted: Sequence[str]) -> list[list[int]]:
        """Of each wanted aspect, which of ours it is made of."""
        unknown = [aspect for aspect in wanted if aspect and aspect not in self.aspects]
        if unknown:
            raise SpecError(
                f"the head knows no aspect {unknown[0]!r}.", where="head", instead=nearest(unknown[0], self.aspects)
            )
        every = list(range(len(self.aspects)))
        return [[self.aspects.index(aspect)] if aspect in self.aspects else every for aspect in wanted]

    def _said(self, features_SD: Tensor, places: Sequence[Sequence[int]], apart: bool) -> Scores:
        """Scores of all pieces, or of the answer that they make up; their spread between members that can say."""
        import torch

        each_MSA = self._trained(features_SD)
        wanted_MSA = torch.stack([each_MSA[..., list(place)].mean(-1) for place in places], -1)
        wanted_MSA = wanted_MSA if apart else wanted_MSA.nanmean(1, keepdim=True)
        mean_SA, others_SA = wanted_MSA.nanmean(0), wanted_MSA.isfinite().sum(0) - 1
        variance_SA = (wanted_MSA - mean_SA).square().nansum(0) / others_SA
        spread_SA = torch.where(others_SA > 0, variance_SA.sqrt(), math.nan)
        value, spread = (tuple(map(tuple, part.tolist())) for part in (mean_SA, spread_SA))
        return Scores(value, spread)


def facts(path: str) -> dict[str, Any]:
    """What ``head.json`` says.

    Raises:
        SpecError: no path.
        RunError: no head there, or one of another version.
    """
    if not path:
        raise SpecError(
            "no head is named.", where="head", instead="Write head:path=FOLDER, from grainline reward train."
        )
    file = Path(os.path.expanduser(path)) / "head.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            f"no head: {error}.", where=str(file), instead="Make one: grainline reward train DATA --out FOLDER."
        ) from error
    if found.get("format") != FORMAT:
        raise RunError(f"a head of format {found.get('format')!r}, not {FORMAT}.", where=str(file))
    return found


def _silent(one: Asked) -> Scores:
    return Scores(((math.nan,) * len(one.aspects),) * len(one.pieces))
