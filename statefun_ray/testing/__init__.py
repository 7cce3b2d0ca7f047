"""Public test tools: an application in this process, and the seeded simulator.

``LocalApplication`` runs functions end to end without Ray; ``simulate`` runs the runtime itself
through seeded faults. Names are looked up on first use, which keeps HTTP and Arrow out.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from statefun_ray.io.egress_file import read_egress as read_egress
    from statefun_ray.local import ApplicationFailed as ApplicationFailed
    from statefun_ray.local import LocalApplication as LocalApplication
    from statefun_ray.testing.runner import SimulationReport as SimulationReport
    from statefun_ray.testing.runner import simulate as simulate

__all__ = ["LocalApplication", "ApplicationFailed", "read_egress", "simulate", "SimulationReport"]

_HOMES = {
    "LocalApplication": "statefun_ray.local",
    "ApplicationFailed": "statefun_ray.local",
    "read_egress": "statefun_ray.io.egress_file",
    "simulate": "statefun_ray.testing.runner",
    "SimulationReport": "statefun_ray.testing.runner",
}


def __getattr__(name: str) -> Any:
    """Import a public name from where it lives, once."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value
