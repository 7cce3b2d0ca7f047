"""Which Ray cluster to use, and getting into it.

``ray.init()`` without an address joins whatever it finds on the machine. Here the choice is
explicit and said aloud: the address given, the one of a Ray job or ``RAY_ADDRESS``, the head that
``ray start`` left running on this machine, or a new local cluster that ends with this program.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import socket
import stat
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ray
import ray._private.ray_constants
import ray._private.utils
from ray._common.utils import get_ray_address_file
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

import statefun_checkpoints
import statefun_ingress
import statefun_ray
import statefun_sdk
from statefun_ray.cluster import registry, signals
from statefun_ray.cluster.deployment import NAMESPACE
from statefun_ray.cluster.errors import ClusterUnreachable

logger = logging.getLogger(__name__)

LOCAL: Final = "local"

OBJECT_STORE_BYTES: Final = 100 * 1024 * 1024
"""Of a cluster of our own: nothing of ours goes through Ray's object store, and /dev/shm is small in containers."""

CONNECT_TIMEOUT_S: Final = 3.0

JOIN_GIVE_UP_S: Final = 5.0
"""For Ray to be initialized after a signal: who stops a service signals Ray's head as well, and without it
Ray goes on trying for a minute. Nothing has been deployed then, and a local Ray ends with this program."""

_EXCLUDED_FROM_UPLOAD: Final = [".git", ".venv", "venv", "node_modules", "__pycache__", ".statefun-ray"]


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster this program is connected to.

    Attributes:
        address: where another program finds it.
        started_here: it ends with this program.
        in_job: this program is the entrypoint of a Ray job.
        joined_here: this module connected the program, so it may disconnect it.
        hosts: host names of its live nodes.
    """

    address: str
    started_here: bool
    in_job: bool
    joined_here: bool
    hosts: tuple[str, ...]

    def leave(self) -> None:
        """Disconnect, unless the program had connected before; a cluster started here ends."""
        if self.joined_here:
            ray.shutdown()

    @property
    def on_one_machine(self) -> bool:
        """There is one node, and it is this machine."""
        return self.started_here or set(self.hosts) == {socket.gethostname()}


def in_ray_job() -> bool:
    """Return whether this program is the entrypoint of a Ray job."""
    return bool(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"))


def choose_address(given: str | None) -> str:
    """Return the address of the cluster to use, or ``local`` for a new one.

    Args:
        given: by the user: ``local``, ``auto``, ``HOST:PORT``, ``ray://…``; None for the usual order.
    """
    wanted = given or os.environ.get("RAY_ADDRESS") or ""
    if wanted == LOCAL:
        return LOCAL
    if wanted and wanted != "auto":
        return wanted
    started = _address_of_started_head()
    if started is not None:
        return started
    return wanted or LOCAL


def connect(address: str, *, cpus: float = 0.0, ship_code: Sequence[str] = ()) -> Cluster:
    """Join the cluster at ``address``, or start one for ``local``, and return it.

    Args:
        address: as `choose_address` returns it.
        cpus: logical CPUs that a new local cluster must have at least.
        ship_code: for a cluster of other machines, the folder of the application. The code this
            program runs is sent along with it, so a cluster needs no installation of ours.

    Raises:
        ClusterUnreachable: nothing answers there, or not to us.
    """
    own = address == LOCAL or any(note.local and note.address == address for note in registry.notes())
    _set_auth_mode(own=own)
    if not (sys.stdout.isatty() and sys.stderr.isatty()) or os.environ.get("NO_COLOR"):
        # Of what Ray puts before the lines of other processes; it asks nobody whether that is a terminal.
        os.environ.setdefault("RAY_COLOR_PREFIX", "0")
    common: dict[str, Any] = {
        "namespace": NAMESPACE,
        "logging_level": logging.WARNING,
        "log_to_driver": True,
        "configure_logging": True,
    }
    with _signals_are_ours(), warnings.catch_warnings():
        # Ray warns about its own future defaults at every start; nobody here can act on it.
        warnings.simplefilter("ignore", category=FutureWarning)
        if address == LOCAL:
            cores = os.cpu_count() or 1
            ray.init(
                address=LOCAL,
                num_cpus=max(cores, math.ceil(cpus)),
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                **common,
            )
            return _cluster(started_here=True)
        _check_listening(address)
        try:
            ray.init(address=address, **common)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ClusterUnreachable(address, str(error).partition("\n")[0]) from error
        cluster = _cluster(started_here=False)
        if ship_code and not cluster.in_job and not cluster.on_one_machine:
            # Only now is it known that other machines are involved; joining again is quick.
            ray.shutdown()
            ray.init(address=address, runtime_env=_runtime_env(ship_code[0]), **common)
        return cluster


@contextmanager
def own_environment() -> Iterator[None]:
    """Forget behind the block how the cluster that it joins proves who asks; the next has another way."""
    before = {name: os.environ.get(name) for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _signals_are_ours() -> Iterator[None]:
    """Have Ray be initialized without an interruption, and without handlers of its own.

    They would end this program with code 15 or, in C++, print its stack, whatever handlers it has.
    """
    utils, constants = ray._private.utils, ray._private.ray_constants
    before = utils.set_sigterm_handler, constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER
    with signals.held(JOIN_GIVE_UP_S):
        utils.set_sigterm_handler = lambda _handler: None
        constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = True
        try:
            yield
        finally:
            utils.set_sigterm_handler, constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = before


def _runtime_env(folder: str) -> dict[str, Any]:
    return {
        "working_dir": folder,
        "py_modules": [statefun_ray, statefun_sdk, statefun_ingress, statefun_checkpoints],
        "excludes": _EXCLUDED_FROM_UPLOAD,
    }


def joined() -> Cluster:
    """Return the cluster that this program had connected to before it called us."""
    return _cluster(started_here=False, joined_here=False)


def _cluster(*, started_here: bool, joined_here: bool = True) -> Cluster:
    hosts = tuple(node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"])
    return Cluster(ray.get_runtime_context().gcs_address, started_here, in_ray_job(), joined_here, hosts)


def _check_listening(address: str) -> None:
    """Fail at once where Ray would try for most of a minute."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ClusterUnreachable(address, error.strerror or str(error)) from None


def is_listening(address: str) -> bool:
    """Return whether somebody listens there, as far as that can be told."""
    try:
        _check_listening(address)
    except ClusterUnreachable:
        return False
    return True


def _address_of_started_head() -> str | None:
    """Return the address of the head that `ray start` left on this machine, if it still answers."""
    try:
        address = Path(get_ray_address_file(None)).read_text(encoding="utf-8").strip()
        _check_listening(address)
    except (OSError, ClusterUnreachable):
        return None
    return address or None


def _set_auth_mode(*, own: bool) -> None:
    """Say explicitly whether Ray's token authentication is on, and with which token, before Ray guesses.

    A cluster of our own always has it: it listens on the machine's network interfaces. Its token is
    not in Ray's usual place, where it would switch authentication on for every later `ray start`.
    For joining another, a token that is there is used; a cluster without does not mind.

    Args:
        own: the cluster is one that an application starts, or has started, for itself.
    """
    environment = os.environ
    if own and not environment.get("RAY_AUTH_TOKEN") and not environment.get("RAY_AUTH_TOKEN_PATH"):
        environment["RAY_AUTH_TOKEN_PATH"] = str(registry.home() / "ray-token")
    token_file = Path(environment.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    mode = environment.get("RAY_AUTH_MODE")
    if mode is None:
        have_token = bool(environment.get("RAY_AUTH_TOKEN")) or token_file.is_file()
        mode = environment["RAY_AUTH_MODE"] = "token" if own or have_token else "disabled"
    if mode == "token" and not environment.get("RAY_AUTH_TOKEN"):
        _keep_private(token_file, create=own)
    # Ray has read its environment when it was imported, which may be long ago.
    ray._raylet.Config.initialize("")  # type: ignore[attr-defined]
    AuthenticationTokenLoader.instance().reset_cache()


def _keep_private(token_file: Path, *, create: bool) -> None:
    """Let nobody else read the token; Ray creates it readable for all, and it allows to run code as us."""
    if token_file.is_file():
        found = token_file.stat()
        if stat.S_IMODE(found.st_mode) & 0o077 and found.st_uid == os.getuid():
            token_file.chmod(0o600)
    elif create:
        token_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32))
