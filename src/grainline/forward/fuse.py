"""Puts the larger operations of :mod:`~grainline.forward.kernels` into a model, where they are proved to fit.

What is looked for is a shape, never an architecture: a low-rank layer of PEFT, a module called ...RMSNorm, a gated MLP,
a rotary function of the usual signature. Each kind of place is tried on random numbers against the module's own code,
values and derivatives, and is left alone where they differ. Nothing else about the model changes: no weight moves, no
class is exchanged, and the new operations are there only while a scorer reads.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import MethodType, ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from grainline.forward import kernels

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}
"""How far apart (relative, L2) two ways of computing one thing may be."""


class Place(NamedTuple):
    """A module, or a Python module, whose ``name`` is exchanged for ``new`` while the scorer reads."""

    owner: nn.Module | ModuleType
    name: str
    new: Any


class Fused:
    """What goes where. Outside :meth:`reading` the model, and everybody else's, is as it was."""

    def __init__(self, places: Sequence[Place], why: str) -> None:
        self.places, self.why = places, why

    @contextmanager
    def reading(self) -> Iterator[None]:
        old = [place.owner.__dict__.get(place.name) for place in self.places]
        for place in self.places:
            setattr(place.owner, place.name, place.new)
        try:
            yield
        finally:
            for place, was in zip(self.places, old, strict=True):
                if was is None:
                    delattr(place.owner, place.name)
                else:
                    setattr(place.owner, place.name, was)


def fuse(model: Any, rows: Callable[[], Tensor]) -> Fused:
    """Fuse what can be fused in ``model``. A module whose forward somebody else has exchanged is left alone.

    Args:
        rows: runs the model on a few tokens, so that layers which read the same tensor can be seen; its logits.
    """
    found = {
        "adapted layers": list(_adapted(model, rows)),
        "norms": list(_norms(model)),
        "gated units": list(_gates(model)),
        "rotary embeddings": list(_rotary(model)),
    }
    places = [place for kind in found.values() for place in kind]
    said = [f"{len(own)} {kind}" for kind, own in found.items() if own]
    if stream := _float32_stream(model, places, rows):
        places, said = [*places, stream], [*said, "a float32 residual stream"]
    return Fused(places, ", ".join(said) or "nothing")


# ------------------------------------------------------------------------------------------------- adapted layers


class Siblings:
    """Adapted layers that read the same tensor. The first to be called answers for all; the others collect."""

    def __init__(self, layers: Sequence[Any]) -> None:
        self.layers = list(layers)
        self._input: Tensor | None = None
        self._version = 0
        self._waiting: dict[int, Tensor] = {}

    def __call__(self, layer: Any, x: Tensor) -> Tensor:
        i = next(i for i, sibling in enumerate(self.layers) if sibling is layer)
        if self._input is x and self._version == x._version and i in self._waiting:
            output = self._waiting.pop(i)
        else:
            together = self.layers if i == 0 else [layer]
            output, *rest = kernels.low_rank(x, [_factors(one) for one in together])
            self._waiting = dict(enumerate(rest, 1))
        self._input, self._version = (x, x._version) if self._waiting else (None, 0)
        return output


def _adapted(model: nn.Module, rows: Callable[[], Any]) -> Iterator[Place]:
    layers = [module for module in _own(model) if _is_low_rank(module)]
    proved: dict[Any, bool] = {}
    for group in _reading_the_same(layers, rows):
        kind = tuple((one.base_layer.weight.shape, one.base_layer.bias is None) for one in group)
        if kind not in proved:
            alone = [(one, functools.partial(_collected, Siblings([one]))) for one in group]
            proved[kind] = all(_same(one, way, one.base_layer.in_features) for one, way in alone)
        if proved[kind]:
            siblings = Siblings(group)
            yield from (Place(one, "forward", functools.partial(_collected, siblings, one)) for one in group)


def _collected(siblings: Siblings, layer: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The forward of a fused adapted layer; anything unusual goes the plain way."""
    if args or kwargs or not all(_acts(one) for one in siblings.layers):
        return type(layer).forward(layer, x, *args, **kwargs)
    return siblings(layer, x)


def _acts(layer: Any) -> bool:
    return not (layer.disable_adapters or layer.merged) and _active(layer) is not None


def _active(layer: Any) -> str | None:
    """The name of the one adapter that acts in ``layer``, where it is plain LoRA."""
    (name, *more) = layer.active_adapters or [""]
    plain = name in layer.lora_A and name not in layer.lora_variant and not more
    dropout = plain and getattr(layer.lora_dropout[name], "p", 0.0) > 0
    return name if plain and not dropout and not layer.lora_bias[name] else None


def _factors(layer: Any) -> kernels.LowRank:
    name = layer.active_adapters[0]
    base = layer.base_layer
    return kernels.LowRank(
        base.weight, base.bias, layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]
    )


def _is_low_rank(module: nn.Module) -> bool:
    """A frozen linear layer in PEFT's wrapping, with one plain pair of factors in use."""
    base = getattr(module, "base_layer", None)
    wrapped = type(base) is nn.Linear and all(hasattr(module, name) for name in ("lora_A", "lora_B", "lora_variant"))
    frozen = isinstance(base, nn.Linear) and not any(p.requires_grad for p in base.parameters())
    return wrapped and frozen and not module.fan_in_fan_out and _active(module) is not None


def _own(model: nn.Module) -> Iterator[nn.Module]:
    """Modules whose forward is their class's: a hook that loads weights for a call, say, must not be passed by."""
    return (module for module in model.modules() if "forward" not in module.__dict__)


def _reading_the_same(layers: Sequence[nn.Module], rows: Callable[[], Any]) -> list[list[Any]]:
    """``layers`` in groups that were called one after another with the very same tensor; uncalled ones alone."""
    if not layers:
        return []
    groups: list[list[nn.Module]] = []
    last: list[Any] = [None]  # the tensor is held, so that no other takes its place in memory

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        if groups and args[0] is last[0]:
            groups[-1].append(module)
        else:
            groups.append([module])
        last[0] = args[0]

    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        with torch.no_grad():
            rows()
    finally:
        for hook in hooks:
            hook.remove()
    seen: set[int] = set()
    once = [[m for m in group if not (id(m) in seen or seen.add(id(m)))] for group in groups]  # type: ignore[func-returns-value]
    return [group for group in once if group] + [[layer] for layer in layers if id(layer) not in seen]


# ---------------------------------------------------------------------------------------------- norms, gates, rotary


def _norms(model: nn.Module) -> Iterator[Place]:
    proved: dict[Any, Callable[..., Tensor] | None] = {}
    for module in _own(model):
        weight = module._parameters.get("weight")
        eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if not type(module).__name__.endswith("RMSNorm") or weight is None or weight.requires_grad or eps is None:
            continue
        kind = (type(module), weight.shape, weight.dtype)
        if kind not in proved:
            proved[kind] = next((way for way in (_norm, _norm_plus_one) if _same(module, way, weight.shape[0])), None)
        if (way := proved[kind]) is not None:
            yield Place(module, "forward", MethodType(way, module))


def _norm(self: Any, x: Tensor) -> Tensor:
    return kernels.rms_norm(x, self.weight, getattr(self, "variance_epsilon", getattr(self, "eps", 0.0)))


def _norm_plus_one(self: Any, x: Tensor) -> Tensor:
    """Gemma stores w - 1."""
    return kernels.rms_norm(x, 1 + self.weight, getattr(self, "variance_epsilon", getattr(self, "eps", 0.0)))


def _gates(model: nn.Module) -> Iterator[Place]:
    proved: dict[Any, Callable[..., Tensor] | None] = {}
    for module in _own(model):
        parts = {name: getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj", "act_fn")}
        width = getattr(parts["gate_proj"], "in_features", None)
        if width is None or None in parts.values():
            continue
        kind = (type(module), type(parts["act_fn"]), width, type(parts["down_proj"]))
        if kind not in proved:
            proved[kind] = next((way for way in (_silu_gated, _gelu_gated) if _same(module, way, width)), None)
        if (way := proved[kind]) is not None:
            yield Place(module, "forward", MethodType(way, module))


def _silu_gated(self: Any, x: Tensor) -> Tensor:
    return _down(self.down_proj, self.gate_proj(x), self.up_proj(x), "silu")


def _gelu_gated(self: Any, x: Tensor) -> Tensor:
    return _down(self.down_proj, self.gate_proj(x), self.up_proj(x), "gelu_tanh")


def _down(layer: Any, gate: Tensor, up: Tensor, activation: str) -> Tensor:
    """One operation with the product before it, where the layer is an adapted one that nobody listens to."""
    if _is_low_rank(layer) and _acts(layer) and not (layer._forward_hooks or layer._forward_pre_hooks):
        return kernels.gated_low_rank(gate, up, activation, _factors(layer))
    return layer(kernels.gated(gate, up, activation))


def _rotary(model: nn.Module) -> Iterator[Place]:
    """A function of the modelling code, looked up there at each call: exchanged for one with the same answers."""
    homes = {type(module).__module__ for module in model.modules() if hasattr(module, "q_proj")}
    for home in sorted(homes):
        own: Any = getattr(sys.modules[home], "apply_rotary_pos_emb", None)
        usual = own is not None and list(inspect.signature(own).parameters) == ["q", "k", "cos", "sin", "unsqueeze_dim"]
        if usual and _same_rotation(own):
            yield Place(sys.modules[home], "apply_rotary_pos_emb", kernels.rotate)


# ----------------------------------------------------------------------------------------------- the residual stream


def _float32_stream(model: Any, places: Sequence[Place], rows: Callable[[], Tensor]) -> Place | None:
    """Embeddings in float32: then layers add to a float32 stream, and norms hand it on in the weights' own dtype.

    Autocast over float32 weights does the same. SmolLM2's gradients in bfloat16 come from 0.062 to 0.048 of float32's.
    It fits where nothing but fused norms reads the stream: tried on ``rows``. Their numbers prove nothing here, as
    the narrow stream may be a quarter off on a token.
    """
    table = model.get_input_embeddings()
    if "forward" in table.__dict__ or next(table.parameters()).dtype not in (torch.bfloat16, torch.float16):
        return None
    stream = Place(table, "forward", functools.partial(_in_float32, table))
    try:
        with torch.no_grad(), Fused([*places, stream], "").reading():
            logits = rows()
    except (RuntimeError, TypeError, ValueError):  # somebody else reads it, and takes the weights' dtype only
        return None
    return stream if logits.is_meta or bool(logits.isfinite().all()) else None


def _in_float32(table: Any, ids: Tensor) -> Tensor:
    return type(table).forward(table, ids).float()


# --------------------------------------------------------------------------------------------------------- the proof


def _same(module: Any, way: Callable[..., Tensor], width: int) -> bool:
    """Does ``way(module, x)`` do what the module does: its values, and the derivatives by x and by what trains?"""
    weight = next(module.parameters())
    if weight.is_meta:  # an estimate without weights: shapes must do
        return True
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 5, width, generator=generator).to(weight)
    trains = [p for p in module.parameters() if p.requires_grad]
    kept = [p.detach().clone() for p in trains]
    with torch.no_grad():  # a fresh adapter changes nothing, and would hide a fault
        for p in trains:
            p.copy_(0.1 * torch.randn(p.shape, generator=generator))
    try:
        ours, theirs = (_pulled(f, x, trains) for f in (lambda x: way(module, x), module))
    except (RuntimeError, TypeError, ValueError, AttributeError):
        return False
    finally:
        with torch.no_grad():
            for p, was in zip(trains, kept, strict=True):
                p.copy_(was)
    return _close(ours, theirs, weight.dtype)


def _same_rotation(own: Callable[..., Any]) -> bool:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(1, 3, 5, 8, generator=generator), torch.randn(1, 1, 5, 8, generator=generator)
    cos, sin = torch.randn(2, 1, 5, 8, generator=generator)

    def both(f: Callable[..., Any]) -> list[Tensor]:
        return _pulled(lambda x: torch.cat([y.flatten() for y in f(x, k, cos, sin)]), q, [])

    return _close(both(kernels.rotate), both(own), q.dtype)


def _pulled(f: Callable[[Tensor], Tensor], x: Tensor, trains: Sequence[Tensor]) -> list[Tensor]:
    """f(x), and the derivatives of a sum of it in which every element has a weight of its own."""
    leaf = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        value = f(leaf)
    weight = torch.cos(torch.arange(value.numel(), device=x.device, dtype=torch.float32)).view(value.shape)
    return [value.detach(), *torch.autograd.grad(value, [leaf, *trains], weight.to(value.dtype))]


def _close(ours: Sequence[Tensor], theirs: Sequence[Tensor], dtype: torch.dtype) -> bool:
    far = [float((a - b).float().norm() / b.float().norm().clamp(min=1e-30)) for a, b in zip(ours, theirs, strict=True)]
    return max(far) <= TOLERANCE.get(dtype, 0.0)
