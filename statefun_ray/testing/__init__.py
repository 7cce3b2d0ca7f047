"""Public test tools: an application in this process, and the seeded simulator.

``LocalApplication`` runs functions end to end without Ray. The simulator's modules are imported
by themselves; looking names up on first use keeps them from pulling in HTTP and Arrow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from statefun_ray.io.egress_file import read_egress as read_egress
    from statefun_ray.local import ApplicationFailed as ApplicationFailed
    from statefun_ray.local import LocalApplication as LocalApplication

__all__ = ["LocalApplication", "ApplicationFailed", "read_egress"]

_HOMES = {
    "LocalApplication": "statefun_ray.local",
    "ApplicationFailed": "statefun_ray.local",
    "read_egress": "statefun_ray.io.egress_file",
}


def __getattr__(name: str) -> Any:
    """Import a public name from where it lives, once."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value
