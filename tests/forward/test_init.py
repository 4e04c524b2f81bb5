"""What ``from grainline.forward import ...`` offers."""

from __future__ import annotations

from grainline import forward


def test_every_name_it_offers_is_there() -> None:
    assert all(getattr(forward, name) is not None for name in forward.__all__)
