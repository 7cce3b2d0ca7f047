"""What is to run, as plain data: the only thing actors are constructed from.

A coordinator that Ray restarts gets this again and nothing else; everything that changes is read
from the store.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from statefun_ray.cluster import registry
from statefun_ray.cluster.errors import BadSetting
from statefun_ray.cluster.target import AppSource
from statefun_ray.durations import format_duration
from statefun_ray.module.model import Module

NAMESPACE: Final = "statefun-ray"
"""The Ray namespace of all applications, so that any driver finds them by name."""

COORDINATOR_CPUS: Final = 0.1
INGRESS_CPUS: Final = 0.25
WORKER_CPUS_DEFAULT: Final = 0.25
"""Logical. With its standby a worker reserves half a core: two of each, an ingress and the coordinator fit on
two cores with room for another application."""

WORKERS_DEFAULT: Final = 2
WORKERS_MAX: Final = 128
STANDBYS_MAX: Final = 128
"""The default is as many as workers: a recovery replaces all of them, and is as fast as the last one."""

HTTP_DEFAULT: Final = "127.0.0.1:8080"
SNAPSHOT_INTERVAL_MS_DEFAULT: Final = 1_000
SNAPSHOT_INTERVAL_MS_MIN: Final = 50

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Tuning:
    """Fields of the hosts' configurations that differ from their defaults, by name.

    Attributes:
        coordinator: of ``core.coordinator.CoordinatorConfig``.
        worker: of ``io.worker_host.WorkerHostConfig``; ``core`` in it is for the worker core.
        ingress: of ``statefun_ingress.config.IngressConfig``.
    """

    coordinator: Mapping[str, Any] = field(default_factory=dict)
    worker: Mapping[str, Any] = field(default_factory=dict)
    ingress: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Deployment:
    """One application and how it is to run.

    Attributes:
        name: of the application, in the commit log, in Ray and on the command line.
        source: where its embedded functions are.
        module: what a module.yaml says beyond them; the playground's ports in it are never 0 either.
        workers: how many.
        worker_cpus: logical CPUs of each, a fraction if you like; a standby reserves the same.
        http_host: interface the ingress listens on.
        http_port: its port, never 0: a restarted ingress comes back where it was.
        storage: ``file://`` or ``s3://`` URI of snapshots and commit log.
        log_dir: folder of the ingress log, on the ingress's own node.
        snapshot_interval_ms: between periodic snapshots.
        standbys: started processes that wait for the next generation.
        sinks: egress typename -> URI of its file sink; others go into the storage.
        attached: the coordinator ends with the program that started it.
        ingress_node: Ray id of the node the ingress log lives on.
        many_nodes: processes may be on different machines, so loopback does not connect them.
        secret: shared by the processes of this deployment; their connections prove they know it.
        tuning: further settings.
        named_after: what gave it its name, for people; empty if that was chosen.
        origin: the file or the target it is started from, with its folder, for people.
    """

    name: str
    source: AppSource
    module: Module
    workers: int
    worker_cpus: float
    http_host: str
    http_port: int
    storage: str
    log_dir: str
    snapshot_interval_ms: int
    standbys: int = 0
    sinks: Mapping[str, str] = field(default_factory=dict)
    attached: bool = False
    ingress_node: str = ""
    many_nodes: bool = False
    secret: bytes = field(default=b"", repr=False)
    tuning: Tuning = Tuning()
    named_after: str = ""
    origin: str = ""

    @property
    def cpus(self) -> float:
        """Logical CPUs of all processes together."""
        return COORDINATOR_CPUS + INGRESS_CPUS + (self.workers + self.standbys) * self.worker_cpus

    @property
    def cpus_by_role(self) -> str:
        """How ``cpus`` comes about, for a person."""
        standbys = f"{self.standbys} standbys x {self.worker_cpus:g} + " if self.standbys else ""
        return (
            f"{self.workers} workers x {self.worker_cpus:g} + {standbys}ingress {INGRESS_CPUS:g} + "
            f"coordinator {COORDINATOR_CPUS:g}"
        )

    def that_fits(self, free: float) -> list[str]:
        """Return the options with which this would fit into ``free`` logical CPUs, the mildest first."""
        left = free - COORDINATOR_CPUS - INGRESS_CPUS
        # Fractions are not exact: round before cutting off.
        fitting = int(round(left / self.worker_cpus, 6))
        # As many standbys as workers stay as many; any other number was asked for.
        workers = fitting // 2 if self.standbys == self.workers else fitting - self.standbys
        smaller = int(round(left / (self.workers + self.standbys) * 100, 6)) / 100
        advice = []
        if self.workers <= fitting:
            advice.append(f"--standbys {fitting - self.workers}")
        if workers >= 1:
            advice.append(f"--workers {workers}")
        if smaller >= 0.01:
            advice.append(f"--worker-cpus {smaller:g}")
        return advice

    @property
    def url(self) -> str:
        """Where the HTTP ingress is reached from its own machine."""
        return self._url_of(self.http_port)

    @property
    def playground(self) -> dict[str, str]:
        """Where the playground's ``ingress`` and ``egress`` are reached from there, if it has them."""
        sides = {"ingress": self.module.playground_ingress, "egress": self.module.playground_egress}
        return {name: self._url_of(side.port) for name, side in sides.items() if side is not None}

    def _url_of(self, port: int) -> str:
        host = "127.0.0.1" if self.http_host in ("0.0.0.0", "::", "") else self.http_host
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def coordinator_name(application: str) -> str:
    """Return the name of an application's coordinator actor."""
    return f"{application}.coordinator"


def ingress_name(application: str, index: int) -> str:
    """Return the name of an application's ingress actor."""
    return f"{application}.ingress.{index}"


def application_of(actor_name: str) -> str | None:
    """Return the application whose coordinator has this actor name, None for other actors."""
    name, dot, role = actor_name.rpartition(".")
    return name if dot and role == "coordinator" else None


def checked_name(name: str, setting: str = "--name") -> str:
    """Return ``name`` if an application can have it; ``setting`` is how the user calls it.

    Raises:
        BadSetting: other characters than lower-case letters, digits and dashes, too long, or the name
            of something else in the folder where each application has one.
    """
    if name in registry.RESERVED:
        raise BadSetting(setting, name, f"another name: {registry.home() / name} is used for something else")
    if _NAME.fullmatch(name) is None:
        raise BadSetting(setting, name, "1 to 48 lower-case letters, digits and dashes, for example my-app")
    return name


def name_for(source: AppSource) -> str:
    """Return the name an application gets when none is given: that of its module.

    ``examples.greeter.main`` is called greeter.
    """
    parts = source.module.split(".")
    while len(parts) > 1 and parts[-1] in ("main", "app", "__main__"):
        parts.pop()
    return re.sub(r"[^a-z0-9]+", "-", parts[-1].lower()).strip("-")[:48].strip("-") or "app"


def parse_http(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``, ``:PORT`` or ``PORT``; port 0 is any free one.

    Raises:
        BadSetting: neither of these, or the port is out of range.
    """
    host, colon, port = text.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdigit() or int(port) > 65_535 or (colon and "/" in host):
        raise BadSetting(
            "--http", text, "HOST:PORT or PORT, a port of 0 to 65535, for example 127.0.0.1:8080"
        )
    return host, int(port)


def checked_storage(uri: str, setting: str = "--storage") -> str:
    """Return the storage URI with an absolute path; ``setting`` is how the user calls it.

    Raises:
        BadSetting: neither ``file://`` nor ``s3://`` nor a plain path.
    """
    scheme = urlsplit(uri).scheme
    if scheme == "s3":
        return uri
    if scheme == "file":
        parts = urlsplit(uri)
        # file://relative/path is a common slip: its first folder reads as a host.
        path = Path(unquote(parts.netloc + parts.path)).expanduser()
        return path.absolute().as_uri()
    if scheme == "" and uri:
        return Path(uri).expanduser().absolute().as_uri()
    raise BadSetting(setting, uri, "file:///folder, s3://bucket/prefix or a folder")


def checked_workers(workers: int) -> int:
    """Return ``workers`` if an application can have so many.

    Raises:
        BadSetting: fewer than one, or more than there are egress shards to own.
    """
    if not 1 <= workers <= WORKERS_MAX:
        raise BadSetting("--workers", str(workers), f"1 to {WORKERS_MAX}")
    return workers


def checked_standbys(standbys: int) -> int:
    """Return ``standbys`` if an application can have so many.

    Raises:
        BadSetting: fewer than none, or more than any recovery takes.
    """
    if not 0 <= standbys <= STANDBYS_MAX:
        raise BadSetting("--standbys", str(standbys), f"0 to {STANDBYS_MAX}")
    return standbys


def checked_snapshot_interval(ms: int) -> int:
    """Return ``ms`` if snapshots can be that frequent.

    Raises:
        BadSetting: more often than is useful.
    """
    if ms < SNAPSHOT_INTERVAL_MS_MIN:
        raise BadSetting(
            "--snapshot-interval",
            f"{ms}ms",
            f"{SNAPSHOT_INTERVAL_MS_MIN}ms or more (replies do not wait for it)",
        )
    return ms


def summary_of(status: dict[str, Any]) -> str:
    """Return a status in one line for people."""
    snapshot = status.get("last_snapshot")
    last = (
        f"snapshot {snapshot['id']}, {format_duration(snapshot['age_ms'])} ago"
        if snapshot
        else "no snapshot yet"
    )
    count = status.get("parked", 0)
    parked = f", {count} address{'es' * (count != 1)} parked" if count else ""
    count = status.get("retrying", 0)
    retrying = f", {count} address{'es' * (count != 1)} retrying" if count else ""
    return (
        f"{status['phase']}, generation {status['generation']}, {last}: {status.get('accepted', 0):,} accepted, "
        f"{status.get('processed', 0):,} processed, lag {status.get('lag', 0):,}{retrying}{parked}"
    )
