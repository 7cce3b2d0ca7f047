"""Starts the shop: ``statefun-ray run examples.shopping_cart.main:functions --name shop``."""

from __future__ import annotations

import statefun_ray
from examples.shopping_cart.functions import functions

__all__ = ["functions"]

if __name__ == "__main__":
    statefun_ray.run(functions, name="shop")
