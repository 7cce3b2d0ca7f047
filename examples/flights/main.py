"""Starts the twins: ``statefun-ray run examples.flights.main:functions --name flights``."""

from __future__ import annotations

import statefun_ray
from examples.flights.functions import functions

__all__ = ["functions"]

if __name__ == "__main__":
    statefun_ray.run(functions, name="flights")
