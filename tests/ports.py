"""Ports for what a test starts, stops and starts again: no connection of anybody takes them meanwhile."""

from __future__ import annotations

import random
import socket

from statefun_ray.io.ports import PORTS

TRIES_MAX = 1_000


def free_port() -> int:
    """Return a port of this machine that nobody listens on, and that no other process of tests is given."""
    for port in random.sample(PORTS, TRIES_MAX):
        if _is_claimed(port):
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return port
    raise AssertionError(f"of {TRIES_MAX} ports in {PORTS} none is free")


def _is_claimed(port: int) -> bool:
    """Claim a port for as long as this process lives: by an abstract name, which the system then forgets."""
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0statefun-ray-tests-{port}")
    except OSError:
        claim.close()
        return False
    claim.detach()
    return True
