"""What adapters share: finding the modules a user names, before PEFT is asked.

PEFT answers a misspelt target with "not found", ignores names in a list as long as one of them matches, and warns about
a pattern without effect. Here each name that matches nothing is an error that lists what exists.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from grainline.errors import ModelError, nearest

if TYPE_CHECKING:
    from torch import nn


def find_targets(
    model: nn.Module, targets: str | Sequence[str], layers: Sequence[int] | None = None
) -> str | list[str]:
    """What PEFT is to be told as ``target_modules``: ``targets`` itself or, where ``layers`` chooses, full names.

    PEFT can restrict layers only for lists of names; written out, the same goes for all-linear and expressions.

    Raises:
        ModelError: a target that matches nothing, or a layer the model does not have; the message lists what exists.
    """
    found = named_targets(model, targets, layers)
    if layers is not None:
        return found
    return targets if isinstance(targets, str) else list(targets)


def named_targets(model: nn.Module, targets: str | Sequence[str], layers: Sequence[int] | None = None) -> list[str]:
    """Full names of the modules that ``targets`` and ``layers`` mean, without PEFT's wrapping.

    Raises:
        ModelError: as :func:`find_targets`.
    """
    names = weight_modules(model)
    suffixes = {name.rpartition(".")[2] for name in names}
    if targets == "all-linear":
        head = getattr(unwrapped(model), "get_output_embeddings", lambda: None)()
        linear = {name: module for name in names if _is_linear(module := unwrapped(model).get_submodule(name))}
        found = [name for name, module in linear.items() if module is not head]  # as PEFT does
    elif isinstance(targets, str):
        found = [name for name in names if _matches(targets, name)]
        if not found:
            raise _missing(f"the expression {targets!r} matches no module.", "targets", targets, suffixes)
    else:
        if not targets:
            raise _missing("no module is named.", "targets", "", suffixes)
        for target in targets:
            if not any(_ends_with(name, target) for name in names):
                raise _missing(f"no module {target!r}.", "targets", target, suffixes)
        found = [name for name in names if any(_ends_with(name, target) for target in targets)]
    if layers is None:
        return found
    there = {number for name in names if (number := _layer(name)) is not None}
    for layer in layers:
        if layer not in there:
            has = f"It has layers {min(there)} to {max(there)}." if there else "It has no numbered layers."
            raise ModelError(f"the model has no layer {layer}.", where="adapter: layers", instead=has)
    chosen = [name for name in found if _layer(name) in layers]
    if not chosen:
        raise ModelError(f"no target lies in layers {list(layers)}.", where="adapter: layers")
    return chosen


def widths(model: nn.Module, name: str, *, linear: bool = False) -> tuple[int, int]:
    """(inputs, outputs) of a layer, under whatever adapters it carries. A convolution has channels times kernel inputs.

    Raises:
        ModelError: ``linear``, and it is something else.
    """
    module = unwrapped(model).get_submodule(name)
    while "base_layer" in module._modules:
        module = module._modules["base_layer"]  # type: ignore[assignment]
    kind = type(module).__name__
    if linear and "Linear" not in kind:
        raise ModelError(f"{name} is a {kind}, not a linear layer.", where="adapter: targets", instead="Leave it out.")
    if hasattr(module, "in_features"):  # a quantised weight has another shape
        return module.in_features, module.out_features  # type: ignore[return-value]
    first, second = module.weight.flatten(1).shape  # type: ignore[operator]
    return (first, second) if kind == "Conv1D" else (second, first)


def check_patterns(model: nn.Module, patterns: Iterable[str]) -> None:
    """See that each name or expression of a rank or alpha pattern matches a module.

    Raises:
        ModelError: one does not.
    """
    names = weight_modules(model)
    for pattern in patterns:
        if not any(_matches(rf"(.*\.)?({pattern})", name) for name in names):
            suffixes = {name.rpartition(".")[2] for name in names}
            raise _missing(f"the pattern {pattern!r} matches no module.", "patterns", pattern, suffixes)


def check_modules(model: nn.Module, modules: Iterable[str]) -> None:
    """See that each module to be trained whole is there.

    Raises:
        ModelError: one is not.
    """
    names = [name for name, _ in unwrapped(model).named_modules() if name]
    for module in modules:
        if not any(_ends_with(name, module) for name in names):
            suffixes = {name.rpartition(".")[2] for name in names}
            raise _missing(f"no module {module!r}.", "modules_to_save", module, suffixes)


def check_unquantised(model: nn.Module, what: str) -> None:
    """See that ``model`` holds whole weights, which ``what`` needs.

    Raises:
        ModelError: they are quantised.
    """
    if getattr(unwrapped(model), "is_quantized", False):
        raise ModelError(
            f"{what} needs weights that are not quantised.",
            where="adapter",
            instead="Leave load_in_4bit off, or choose another.",
        )


def weight_modules(model: nn.Module) -> list[str]:
    """Names of the modules that hold a matrix (linear, convolution, embedding), without PEFT's wrapping."""
    names: list[str] = []
    wrapped: list[str] = []
    for name, module in unwrapped(model).named_modules():
        if name.startswith(tuple(wrapped)):
            continue  # inside a layer that already carries an adapter
        if "base_layer" in module._modules:
            wrapped.append(f"{name}.")
            names.append(name)
        elif getattr(getattr(module, "weight", None), "ndim", 0) >= 2:
            names.append(name)
    return names


def task_type(model: nn.Module) -> str | None:
    """What PEFT is to be told that the model is for: it asks more of causal models than other ones can give."""
    return "CAUSAL_LM" if hasattr(unwrapped(model), "prepare_inputs_for_generation") else None


def unwrapped(model: nn.Module) -> nn.Module:
    """The model under a PeftModel, or the model itself."""
    wrapped = hasattr(model, "peft_config") and hasattr(model, "get_base_model")
    return model.get_base_model() if wrapped else model  # type: ignore[operator]


def _ends_with(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error as error:
        raise ModelError(f"not a regular expression ({error}).", where=f"adapter: {pattern}") from None


def _layer(name: str) -> int | None:
    number = re.search(r"\.(\d+)\.", f".{name}.")
    return int(number[1]) if number else None


def _is_linear(module: nn.Module) -> bool:
    from torch import nn

    layer = module._modules.get("base_layer") or module
    return isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D"  # GPT-2's transposed linear


def _missing(what: str, option: str, name: str, known: Iterable[str]) -> ModelError:
    return ModelError(what, where=f"adapter: {option}", instead=nearest(name, known))
