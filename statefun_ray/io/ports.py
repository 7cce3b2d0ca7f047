"""Where an application listens, if nobody has said so: at ports that are chosen once, before anything listens.

An ingress that is restarted listens where clients know it, so what is chosen goes with everything
else that an ingress is told.
"""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Container
from dataclasses import replace
from typing import Final

from statefun_ray.module.model import Module

PORTS: Final = range(20_000, 32_000)
"""Where a free port is looked for: below those that Linux gives to outgoing connections, from 32,768 on. One of
these could take the ingress's port before it listens, or while it is restarted."""

PORT_TRIES: Final = 100


def choose_ports(host: str, http_port: int, module: Module) -> tuple[int, Module]:
    """Return the port of HTTP, and the module with those of the playground; a port that is not 0 stays as it is.

    Raises:
        OSError: nobody can listen at ``host``.
    """
    ingress, egress = module.playground_ingress, module.playground_egress
    used = {http_port, ingress.port if ingress else 0, egress.port if egress else 0}

    def chosen(port: int) -> int:
        port = port or free_port(host, used)
        used.add(port)
        return port

    http_port = chosen(http_port)
    if ingress is not None:
        module = replace(module, playground_ingress=replace(ingress, port=chosen(ingress.port)))
    if egress is not None:
        module = replace(module, playground_egress=replace(egress, port=chosen(egress.port)))
    return http_port, module


def free_port(host: str, used: Container[int] = ()) -> int:
    """Return a port that nobody listens on now, and that is not one of ``used``.

    Raises:
        OSError: nobody can listen at ``host``.
    """
    for port in random.sample(PORTS, PORT_TRIES):
        if port not in used:
            try:
                return try_port(host, port)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
    return try_port(host, 0)


def try_port(host: str, port: int) -> int:
    """Return the port that one who listens on ``port`` now gets: another one if it is 0.

    Raises:
        OSError: nobody can.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind((host, port))
        found: int = trial.getsockname()[1]
        return found
