"""What every process of an application does first: logging, and where it runs."""

from __future__ import annotations

import logging
import os
import socket
import sys
from typing import Final

import ray

from statefun_ray.cluster.deployment import Deployment

_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def configure_logging() -> None:
    """Log to stderr, which Ray keeps in the session's logs and shows to whoever is attached."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(_FORMAT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(os.environ.get("STATEFUN_RAY_LOG", "INFO").upper())
    for noisy in ("ray", "asyncio", "botocore", "aiobotocore", "s3fs", "fsspec", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def host_name() -> str:
    """Return the host name of this process's node."""
    return socket.gethostname()


def bind_host(deployment: Deployment) -> str:
    """Return the interface our own TCP connections use: loopback unless other machines take part."""
    return ray.util.get_node_ip_address() if deployment.many_nodes else "127.0.0.1"
