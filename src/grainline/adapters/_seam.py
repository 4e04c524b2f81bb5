"""The interface of an adapter, and what every adapter is asked.

An adapter is a spec that makes a PEFT configuration::

    adapter.config(model) -> peft.PeftConfig | None        # None: nothing is attached

and says of itself

================  ==================================================================================================
``layouts``       which batch layouts give exact numbers: {"tree", "packed", "padded"}. Token-wise changes can do all;
                  anything random or position-dependent inside an answer cannot share a prompt between answers
``changes_base``  True where attaching alters the frozen weights, so that "adapter off" is not the base model
``roles``         name of PEFT's parameter container -> role, e.g. {"lora_A": "down", "lora_B": "up"}
``exceptions``    (optional) promise of ``contract.py`` that it does not make -> why
``attached``      (optional) a function of the wrapped model, called once a fresh adapter is on it
``looks``         (optional) rows of the data that its start wants to see; 0 = none. With some, it has also
``studied``       a function of the wrapped model and of ``Losses``: finds the start, while the adapter changes nothing
``started``       a function of the wrapped model, called once the start is in place
``resumed``       (optional) a function of the wrapped model and of the start that was kept, by PEFT's names, where a
                  run goes on: puts that in the place of the fresh one
``placed``        (optional) a function of a prompt's ids: the ids that the adapter wants in their place
``readied``       (optional) a function of the bare model, called before it reads such ids
``examined``      (optional) a function of random ids: the same with such ids among them, for ``contract.py``
``reading``       (optional) text: what a bare model's reading of such ids depends on
================  ==================================================================================================

The functions below attach and question any of them. torch and peft are imported where they are used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from grainline.errors import ModelError
from grainline.types import Tagged

if TYPE_CHECKING:
    from torch import Tensor, nn

Losses = Callable[[], "Iterator[Tensor]"]
"""Each call gives the losses of the same rows once more, one after another: each is to be differentiated before the
next is asked for, and their sum is what is meant."""


class Adapter(Protocol):
    layouts: frozenset[str]
    roles: dict[str, str]

    @property
    def changes_base(self) -> bool: ...

    def config(self, model: nn.Module) -> Any: ...


def attach(adapter: Adapter, model: nn.Module) -> nn.Module:
    """Wrap ``model`` with a fresh adapter (a :class:`peft.PeftModel`), or free all its weights for ``none``.

    Raises:
        ModelError: the model cannot carry it.
    """
    config = adapter.config(model)
    if config is None:
        return model.requires_grad_(True)
    return _wrapped(adapter, model, config)


def attach_shapes(adapter: Adapter, model: nn.Module) -> nn.Module:
    """:func:`attach` on a model of the meta device: tensors of the right shapes, for counting.

    Raises:
        ModelError: PEFT refuses the model, or needs the values of its weights.
    """
    config = adapter.config(model)
    if config is None:
        return model.requires_grad_(True)
    if hasattr(config, "init_lora_weights"):
        config.init_lora_weights = True  # other starts need weights
    try:
        with buffers_as_shapes():
            return _wrapped(adapter, model, config)
    except (ModelError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ModelError(f"it cannot be counted without weights ({reason})", where="adapter") from error


@contextlib.contextmanager
def buffers_as_shapes() -> Iterator[None]:
    """Buffers go to the meta device as modules register them: BOFT makes a real square of a matrix' inputs for each,
    which together are larger than the model."""
    from torch import nn

    register = nn.Module.register_buffer

    def shape(module: nn.Module, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        register(module, name, tensor if tensor is None else tensor.to("meta"), persistent)

    nn.Module.register_buffer = shape  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        nn.Module.register_buffer = register  # type: ignore[method-assign]


def starts_apart(adapter: Adapter) -> bool:
    """Whether ``adapter`` says that even fresh it is not the base: a learnt prompt is read from the first step on."""
    return "fresh is the base" in getattr(adapter, "exceptions", {})


def _wrapped(adapter: Adapter, model: nn.Module, config: Any) -> nn.Module:
    import peft

    try:
        wrapped = peft.get_peft_model(model, config)
    except ModelError:
        raise
    except (ValueError, TypeError, NotImplementedError) as error:
        targets = getattr(config, "target_modules", None) or "the model"
        where = targets if isinstance(targets, str) else ", ".join(sorted(targets)[:3])
        raise ModelError(f"PEFT cannot attach it to {where}: {error}", where="adapter") from error
    getattr(adapter, "attached", lambda _: None)(wrapped)
    return wrapped


def tagged(adapter: Adapter, model: nn.Module) -> list[Tagged]:
    """Every trainable tensor of ``model`` with its role; a tensor of an unknown container has the role ``"weight"``."""
    found = []
    for name, tensor in model.named_parameters():
        if tensor.requires_grad:
            role = next((role for container, role in adapter.roles.items() if container in name.split(".")), "weight")
            found.append(Tagged(name, tensor, role))
    return found
