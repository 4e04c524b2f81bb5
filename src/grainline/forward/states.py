"""What a reference may be asked for besides log-probs: its hidden states and activations at the answer positions.

===============  ==================================  ======================================================
part             field of LogProbs                   what it is, where each answer token is predicted
===============  ==================================  ======================================================
``hidden``       ``hidden (B, T, 1, H)``             the final hidden state, which the head reads
``layers``       ``hidden (B, T, L, H)``             the hidden state after each layer; the last is the final one
``activations``  ``activations (B, T, F, K)``        means over the features of inner tensors, family by family
===============  ==================================  ======================================================

Families stand in the order of :data:`FAMILIES`; a place that a family does not fill is NaN. Rotary queries and keys
are not among them: they exist inside the attention function only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from grainline.errors import ModelError
from grainline.forward import head
from grainline.forward.divergence import logits_of
from grainline.types import Batch

FAMILIES = ("mlp", "attn", "resid", "logits")

PARTS = {
    "kl": "hidden",
    "reference_hidden": "hidden",
    "reference_layers": "layers",
    "reference_activations": "activations",
}
"""Need of an objective -> what the reference keeps for it."""


def parts(needs: Iterable[str]) -> tuple[str, ...]:
    """What the reference keeps for an objective with these ``needs``; all layers hold the final state too."""
    found = {PARTS[need] for need in needs if need in PARTS}
    return tuple(sorted(found - {"hidden"} if "layers" in found else found))


class Watch:
    """Sees the activations of a model's body while it runs, if ``keep`` asks for them."""

    def __init__(self, body: nn.Module, keep: Collection[str], source: Tensor) -> None:
        self.source = source
        self.wanted = list(_places(body)) if "activations" in keep else []
        self.means: dict[str, list[Tensor]] = {family: [] for family in FAMILIES}
        self._handles: list[Any] = []

    def __enter__(self) -> Watch:
        for family, module, before in self.wanted:
            register = module.register_forward_pre_hook if before else module.register_forward_hook
            self._handles.append(register(self._hook(family)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, family: str) -> Any:
        def see(module: nn.Module, inputs: Any, output: Any = None) -> None:
            found = inputs if output is None else output
            tensor = found[0] if isinstance(found, tuple) else found
            self.means[family].append(_mean(tensor).flatten()[self.source])

        return see

    def kept(self, keep: Collection[str], found: Any, causal: Any) -> dict[str, Tensor]:
        """What ``keep`` names of a forward that is over, at the M positions."""
        if "layers" in keep:
            states = [state.flatten(0, 1)[self.source] for state in found.hidden_states[1:]]
        else:
            states = [found.last_hidden_state.flatten(0, 1)[self.source]]
        kept = {} if not {"hidden", "layers"} & set(keep) else {"hidden": torch.stack(states, 1)}
        return kept | ({"activations": self._table(states[-1], causal)} if "activations" in keep else {})

    def _table(self, hidden_MH: Tensor, causal: Any) -> Tensor:
        """(M, F, K) means over features, float32 or wider."""
        logits = logits_of(causal.get_output_embeddings(), causal.config)
        rows = max(1, head.LOGITS_AT_ONCE // causal.config.get_text_config().vocab_size)
        last = torch.cat([logits(piece).mean(-1) for piece in hidden_MH.split(rows)])
        means = self.means | {"logits": [last]}
        table = last.new_full((len(last), len(FAMILIES), max(map(len, means.values()))), math.nan)
        for f, family in enumerate(FAMILIES):
            for k, mean in enumerate(means[family]):
                table[:, f, k] = mean
        return table


class Tap:
    """Catches the states after some layers of a body, and stops the forward once the last of them is there.

    ``layers`` are counted from 1; the last one's state is taken as it leaves the body, after the final norm.
    """

    def __init__(self, body: nn.Module, layers: Collection[int]) -> None:
        found = next((child for child in body.children() if isinstance(child, nn.ModuleList) and len(child)), None)
        if found is None:
            raise ModelError("its layers are not found.", where=type(body).__name__)
        self.depth, self.wanted = len(found), sorted(set(layers))
        self.state: dict[int, Tensor] = {}
        self._layers: nn.ModuleList = found

    def read(self, forward: Callable[[], Any]) -> dict[int, Tensor]:
        """Layer -> its state, of one call of ``forward``."""
        self.state = {}
        inner = [k for k in self.wanted if k < self.depth]
        handles = [self._layers[k - 1].register_forward_hook(self._hook(k)) for k in inner]
        try:
            self.state[self.depth] = forward().last_hidden_state
        except _Enough:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return self.state

    def _hook(self, layer: int) -> Any:
        def see(module: nn.Module, inputs: Any, output: Any) -> None:
            self.state[layer] = output[0] if isinstance(output, tuple) else output
            if layer == self.wanted[-1]:
                raise _Enough

        return see


class _Enough(Exception):
    """Nothing above is asked for."""


def by_row(batch: Batch, value_M: Tensor) -> Tensor:
    """(M, ...) of all distinct answers' tokens -> (B, T, ...) in the objective's rows; 0 outside."""
    outside_BT = batch.rows < 0
    found = value_M[batch.rows.clamp(min=0)]
    return found.masked_fill(outside_BT.view(*outside_BT.shape, *(1 for _ in value_M.shape[1:])), 0)


def once(batch: Batch, value_BT: Tensor) -> Tensor:
    """The way back: (B, T, ...) -> (M, ...), each answer's tokens from one of the rows that hold it."""
    inside_BT = batch.rows >= 0
    found = value_BT.new_empty(len(batch.target), *value_BT.shape[2:])
    found[batch.rows[inside_BT]] = value_BT[inside_BT]
    return found


def _mean(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32)).mean(-1)


def _places(body: nn.Module) -> Iterable[tuple[str, nn.Module, bool]]:
    """(family, module, whether its input is meant) of all tensors that are looked at.

    Raises:
        ModelError: the layers are not laid out in a way that is known here.
    """
    layers = next((child for child in body.children() if isinstance(child, nn.ModuleList) and len(child)), None)
    if layers is None:
        raise ModelError("its layers are not found.", where=type(body).__name__, instead="Choose another objective.")
    for child in body.children():
        if child is not layers and isinstance(child, nn.Embedding):
            yield "resid", child, False
    for layer in layers:
        yield from _of_layer(layer)
    for name, child in body.named_children():
        if "norm" in name or name.startswith("ln"):
            yield "resid", child, False


def _of_layer(layer: nn.Module) -> Iterable[tuple[str, nn.Module, bool]]:
    """Attention: what goes in and out of its projections. MLP: after its nonlinearity. Stream: around both."""
    for name, child in layer.named_children():
        if "attn" in name or "attention" in name:
            if "norm" not in name:
                yield from (
                    ("attn", inner, False) for inner in child.children() if getattr(inner, "weight", None) is not None
                )
                yield "resid", child, False
                continue
        elif "mlp" in name or "feed_forward" in name:
            inside = [inner for inner in child.children() if not any(True for _ in inner.parameters())]
            yield from (("mlp", inner, False) for inner in inside[:1])
            yield "resid", child, False
            continue
        if "norm" in name or name.startswith("ln"):
            yield "resid", child, True
            yield "resid", child, False
    yield "resid", layer, False
