"""Looking at and ending applications that run already: ``status`` and ``stop``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import ray

from statefun_ray.cluster import connection, registry
from statefun_ray.cluster.deployment import (
    NAMESPACE,
    application_of,
    checked_name,
    coordinator_name,
    ingress_name,
)
from statefun_ray.cluster.errors import ClusterUnreachable, LaunchError, UnknownApplication

ANSWER_S: Final = 10.0
"""For a coordinator to answer, longer than Ray takes to restart one."""

STOP_S: Final = 120.0
"""For the final snapshot; after it the processes are killed, and what was not in it is done again."""


class NoAnswer(LaunchError):
    """The coordinator runs but does not answer."""

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__(name, seconds)
        self.name, self.seconds = name, seconds

    def __str__(self) -> str:
        return (
            f"the coordinator of {self.name!r} did not answer within {self.seconds:g} s; try again, or end the "
            f"application without a final snapshot: statefun-ray stop {self.name} --now"
        )


def status(name: str, address: str | None = None) -> dict[str, Any]:
    """Return the status of the application ``name``.

    Raises:
        UnknownApplication: none of this name runs.
        ClusterUnreachable: no Ray answers at the given address.
        NoAnswer: the coordinator does not.
    """
    with _joined(name, address):
        found: dict[str, Any] = ask(name, "status", timeout_s=ANSWER_S)
        return found


def all_statuses(address: str | None = None) -> list[dict[str, Any]]:
    """Return the status of every application that runs in a cluster which is known here, by name.

    One that does not answer has a name and a ``last_error`` only.

    Raises:
        ClusterUnreachable: no Ray answers at the given address.
    """
    if ray.is_initialized():
        return _statuses_here()
    noted = {note.address for note in registry.notes()}
    places = {address} if address is not None else {connection.choose_address(None), *noted}
    found = []
    for place in sorted(places - {connection.LOCAL}):
        with connection.own_environment():
            try:
                cluster = connection.connect(place)
            except ClusterUnreachable:
                if address is not None:
                    raise
                continue
            try:
                found += _statuses_here()
            finally:
                cluster.leave()
    return sorted(found, key=lambda status: str(status["name"]))


def _statuses_here() -> list[dict[str, Any]]:
    found = []
    for name in running_here():
        try:
            found.append(ask(name, "status", timeout_s=ANSWER_S))
        except UnknownApplication:
            continue
        except NoAnswer as error:
            found.append({"name": name, "last_error": str(error)})
    return found


def statuses(name: str, address: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the status of ``name`` as often as it is asked for, until the application has ended.

    Raises:
        UnknownApplication: none of this name runs when the first is asked for.
        ClusterUnreachable: no Ray answers at the given address.
    """
    with _joined(name, address):
        yield ask(name, "status", timeout_s=ANSWER_S)
        while True:
            try:
                yield ask(name, "status", timeout_s=ANSWER_S)
            except (UnknownApplication, NoAnswer):
                return


def stop(name: str, address: str | None = None, *, now: bool = False) -> dict[str, Any]:
    """End the application ``name`` with a final snapshot, and return how it went.

    Returns when its processes have ended, or, on a local cluster, the program that started it.

    Args:
        now: kill it instead; started again it goes on from its last snapshot all the same.

    Raises:
        UnknownApplication: none of this name runs.
        ClusterUnreachable: no Ray answers at the given address.
        NoAnswer: the coordinator does not.
    """
    note = registry.read_note(name)
    is_local = note is not None and note.local and address is None
    outcome: dict[str, Any] = {}
    with _joined(name, address):
        if not now:
            outcome = ask(name, "stop", timeout_s=STOP_S)
        if now or not is_local:
            end_processes(name, patience_s=0.0 if now else ANSWER_S)
    # The cluster goes down with the program that started it: do not stay in it meanwhile.
    if note is not None and is_local:
        registry.wait_gone(note, ANSWER_S)
    registry.forget(name)
    return outcome


def ask(name: str, method: str, *, timeout_s: float) -> Any:
    """Call a method of the coordinator of ``name``, again while Ray restarts it.

    Raises:
        UnknownApplication: there is no such coordinator.
        NoAnswer: not within ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        actor = coordinator_of(name)
        if actor is None:
            raise UnknownApplication(name, running_here(), "this Ray cluster")
        try:
            call = getattr(actor, method).remote()
            return ray.get(call, timeout=max(0.1, deadline - time.monotonic()))
        except ray.exceptions.GetTimeoutError:
            raise NoAnswer(name, timeout_s) from None
        except ray.exceptions.ActorDiedError:
            raise UnknownApplication(name, running_here(), "this Ray cluster") from None
        except ray.exceptions.ActorUnavailableError:
            if time.monotonic() >= deadline:
                raise NoAnswer(name, timeout_s) from None
            time.sleep(0.1)


def waited_for(name: str) -> str:
    """Return what a stop of ``name`` waits for, as far as its coordinator says."""
    if not ray.is_initialized():
        return "its Ray cluster is being joined, or taken down"
    try:
        status: dict[str, Any] = ask(name, "status", timeout_s=ANSWER_S)
    except UnknownApplication:
        return "its processes are ending"
    except (LaunchError, ray.exceptions.RayError) as error:
        return f"its coordinator does not say what is waited for ({type(error).__name__})"
    return _what_a_stop_waits_for(status)


def _what_a_stop_waits_for(status: dict[str, Any]) -> str:
    busy = sorted({process["busy_with"] for process in status["processes"] if process.get("busy_with")})
    trouble = next((process["trouble"] for process in status["processes"] if process.get("trouble")), "")
    if busy:
        return f"functions at work are waited for: {', '.join(busy)}"
    if trouble:
        return f"a sink or the storage is waited for: {trouble}"
    if status["phase"] in ("stopping", "running"):
        return "the final snapshot is waited for"
    if status["phase"] == "stopped":
        return "what the final snapshot released is being handed to the sinks"
    return f"it is {status['phase']!r}, and its final snapshot comes after that"


def coordinator_of(name: str) -> Any | None:
    """Return the coordinator actor of ``name`` in the joined cluster, None if there is none."""
    try:
        return ray.get_actor(coordinator_name(name), NAMESPACE)
    except ValueError:
        return None


def running_here() -> tuple[str, ...]:
    """Return the names of all applications in the joined cluster."""
    actors = ray.util.list_named_actors(all_namespaces=True)
    found = {application_of(actor["name"]) for actor in actors if actor["namespace"] == NAMESPACE}
    return tuple(sorted(name for name in found if name is not None))


def end_processes(name: str, *, patience_s: float = 0.0) -> None:
    """Wait until the processes of ``name`` have ended; kill what has not after ``patience_s``."""
    names = {coordinator_name(name), ingress_name(name, 0)}
    if _wait_ended(names, patience_s):
        return
    for actor_name in names:
        try:
            ray.kill(ray.get_actor(actor_name, NAMESPACE), no_restart=True)
        except ValueError:
            continue  # has ended by itself
    _wait_ended(names, ANSWER_S)


def url_of(name: str, address: str | None) -> str:
    """Return where the HTTP ingress of an application is.

    Raises:
        UnknownApplication: there is none of this name.
    """
    note = registry.read_note(checked_name(name, "NAME"))
    return note.url if note is not None else str(status(name, address)["url"])


def _wait_ended(names: set[str], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while True:
        living = {actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)}
        if living.isdisjoint(names):
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)


@contextmanager
def _joined(name: str, address: str | None) -> Iterator[None]:
    """Join the cluster that ``name`` most likely runs in, for the duration of the block."""
    checked_name(name, "NAME")
    if ray.is_initialized():
        yield
        return
    note = registry.read_note(name)
    where = address or (note.address if note is not None else connection.choose_address(None))
    # Of those that were started in this cluster, the cluster knows which still run.
    known = tuple(
        other.name
        for other in registry.notes()
        if other.address != where and connection.is_listening(other.address)
    )
    if where == connection.LOCAL:
        raise UnknownApplication(
            name, known, "the applications started on this machine; no Ray cluster was found here"
        )
    try:
        cluster = connection.connect(where)
    except ClusterUnreachable:
        if address is not None or note is None:
            raise
        registry.forget(name)
        raise UnknownApplication(name, known, f"the Ray cluster at {where}, which is gone") from None
    try:
        yield
    except UnknownApplication as unknown:
        if note is not None and note.address == where:
            registry.forget(name)
        running = tuple(sorted({*unknown.running, *known} - {name}))
        raise UnknownApplication(name, running, f"the Ray cluster at {where}") from None
    finally:
        cluster.leave()
