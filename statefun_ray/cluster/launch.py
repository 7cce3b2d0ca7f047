"""Starting an application: check, deploy, wait until it is ready, stay with it.

Everything that can be wrong is found before anything is deployed where that is possible, and said
in one sentence. What was deployed and did not become ready is taken down again.
"""

from __future__ import annotations

import errno
import logging
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from statefun_checkpoints.errors import CheckpointsError
from statefun_checkpoints.store import ObjectStore, open_store
from statefun_ingress.errors import CorruptLog, LogLocked
from statefun_ray.cluster import connection, operate, registry
from statefun_ray.cluster.coordinator_actor import CoordinatorActor
from statefun_ray.cluster.deployment import (
    COORDINATOR_CPUS,
    INGRESS_CPUS,
    NAMESPACE,
    Deployment,
    coordinator_name,
    ingress_name,
)
from statefun_ray.cluster.errors import (
    AddressUnusable,
    ClusterOpen,
    LogFolderUnusable,
    LogInUse,
    NameTaken,
    NotEnoughCpus,
    PortTaken,
    StartFailed,
    StartStopped,
    StorageUnusable,
)
from statefun_ray.cluster.ingress_actor import IngressActor
from statefun_ray.cluster.signals import Signals, held
from statefun_ray.cluster.watch import Watch
from statefun_ray.io.adoption import Adoption, adopt, last_origin, note_origin
from statefun_ray.io.ports import choose_ports, try_port

logger = logging.getLogger(__name__)

READY_S: Final = 90.0
"""For a deployed application to become ready: loading a large state takes its time."""

ORPHANS_GONE_S: Final = 5.0
"""For the processes of an application whose program was killed to end: Ray takes about two seconds."""

LISTEN_AGAIN_S: Final = 1.0
"""After their log is free their addresses are, in a moment."""

CLOSE_S: Final = 2.0
"""For the ingress to close. A log that was not closed is looked for by the next start, nothing worse."""

LAST_WORD_S: Final = 2.0
"""For a coordinator that has ended to say why, once something of it is found to be gone."""

SAY_AGAIN_S: Final = 30.0
"""Until a reason for trying again is said once more, if it stays the same."""

CPUS_FREE_S: Final = 5.0
"""Ray takes a moment to count the CPUs of an application that has just ended as free."""


class Application:
    """A running application, seen from the program that started it."""

    def __init__(
        self, deployment: Deployment, cluster: connection.Cluster, coordinator: Any, ingress: Any
    ) -> None:
        self.deployment = deployment
        self.cluster = cluster
        self.coordinator = coordinator
        # Ray ends an actor that is not detached when the last handle of its owner is gone.
        self._ingress = ingress

    @property
    def name(self) -> str:
        """Its name."""
        return self.deployment.name

    @property
    def url(self) -> str:
        """Where its HTTP ingress listens."""
        return self.deployment.url

    def status(self) -> dict[str, Any]:
        """Return what ``statefun-ray status --json`` prints."""
        found: dict[str, Any] = operate.ask(self.name, "status", timeout_s=operate.ANSWER_S)
        return found

    def stop(self, *, now: bool = False) -> dict[str, Any]:
        """End it with a final snapshot, or ``now``, and return how it went."""
        outcome: dict[str, Any] = {} if now else operate.ask(self.name, "stop", timeout_s=operate.STOP_S)
        operate.end_processes(self.name, patience_s=0.0 if now else operate.ANSWER_S)
        registry.forget(self.name)
        return outcome

    def close_ingress(self, outcome: dict[str, Any]) -> None:
        """Wait a moment until the ingress has closed its log, after the application ended as ``outcome`` says."""
        last = outcome.get("last_snapshot") or {}
        try:
            ray.get(self._ingress.close.remote(last.get("positions", {})), timeout=CLOSE_S)
        except ray.exceptions.RayError as error:
            logger.info("the ingress did not close: %s", type(error).__name__)


def run(
    deployment: Deployment,
    *,
    signals: Signals,
    address: str | None = None,
    allow_open_cluster: bool = False,
    say: Callable[[str], None] | None = None,
) -> None:
    """Start an application and stay with it until it ends or is left.

    Args:
        deployment: from `plan_deployment`.
        signals: what Ctrl-C and SIGTERM come to.
        address: of the Ray cluster: ``local`` for one that ends with this program, ``auto``,
            ``HOST:PORT``; by default that of the Ray job or of ``RAY_ADDRESS``, else the head that
            ``ray start`` left running on this machine, else a local one.
        allow_open_cluster: run on several nodes although anybody on the network may join.
        say: takes lines for the person who started it; they are printed unless given.

    Raises:
        LaunchError: the surroundings do not allow it now.
    """
    say = say or _print
    try:
        application = start(
            deployment,
            address=address,
            allow_open_cluster=allow_open_cluster,
            say=say,
            on_ready=signals.only_count,
        )
    except StartStopped as stopped:
        say(str(stopped))
        return
    try:
        Watch(application, say, signals).until_end()
    finally:
        if application.cluster.started_here:
            registry.forget(application.name)
        application.cluster.leave()


def start(
    deployment: Deployment,
    *,
    address: str | None = None,
    allow_open_cluster: bool = False,
    say: Callable[[str], None],
    on_ready: Callable[[], None] = lambda: None,
) -> Application:
    """Deploy an application and return it when it is ready.

    Args:
        on_ready: called before anything that follows may be interrupted: what fails up to then takes
            the application down again, and nothing after does.

    Raises:
        StartStopped: somebody stopped it before.
        LaunchError: the surroundings do not allow it now, or it did not become ready.
    """
    _check_name_is_free_here(deployment.name)
    store = _check_storage(deployment.storage)
    adoption, has_waited = _adopt(deployment, store, say)
    _check_log_folder(deployment.log_dir)
    deployment = _with_ports(deployment, LISTEN_AGAIN_S if has_waited else 0.0)
    _say_what_goes_on(deployment, store, adoption, say)
    cluster = _connect(deployment, address, say)
    try:
        application = _deploy(
            deployment, cluster, allow_open_cluster=allow_open_cluster, say=say, on_ready=on_ready
        )
    except BaseException:
        cluster.leave()
        raise
    _note_origin(store, deployment.origin)
    return application


def _connect(deployment: Deployment, address: str | None, say: Callable[[str], None]) -> connection.Cluster:
    if ray.is_initialized():
        return connection.joined()
    where = connection.choose_address(address)
    if where == connection.LOCAL:
        say(f"starting a local Ray ({deployment.cpus:g} CPUs needed: {deployment.cpus_by_role}) ...")
    else:
        say(f"joining the Ray cluster at {where} ...")
    return connection.connect(where, cpus=deployment.cpus, ship_code=deployment.source.sys_path[-1:])


def _deploy(
    deployment: Deployment,
    cluster: connection.Cluster,
    *,
    allow_open_cluster: bool,
    say: Callable[[str], None],
    on_ready: Callable[[], None],
) -> Application:
    nodes = len(cluster.hosts)
    if nodes > 1 and os.environ.get("RAY_AUTH_MODE") != "token" and not allow_open_cluster:
        raise ClusterOpen(cluster.address, nodes)
    if nodes > 1 and deployment.storage.startswith("file:"):
        say(
            f"note: {deployment.storage} must be one shared folder on all {nodes} nodes of this cluster; "
            "s3:// needs nothing like it"
        )
    if operate.coordinator_of(deployment.name) is not None:
        raise NameTaken(deployment.name, f"on the Ray cluster at {cluster.address}")
    _check_cpus(deployment)
    deployment = replace(
        deployment,
        many_nodes=not cluster.on_one_machine,
        ingress_node=ray.get_runtime_context().get_node_id(),
    )
    try:
        with held():
            coordinator, ingress = _create(deployment)
            application = Application(deployment, cluster, coordinator, ingress)
            # From here on `status` and `stop` find it.
            registry.write_note(_note_of(deployment, cluster))
        try:
            _wait_ready(deployment, coordinator, ingress, say)
        except StartFailed:
            application.close_ingress({})  # its log is empty, so that no later start looks for it
            raise
        on_ready()
    except ray.exceptions.ActorAlreadyExistsError:
        # Somebody else was faster since it was looked for: what there is is theirs.
        raise NameTaken(deployment.name, f"on the Ray cluster at {cluster.address}") from None
    except BaseException:
        # A cluster of our own goes down with us, and may have lost its head to the signal that ended this.
        if not cluster.started_here:
            operate.end_processes(deployment.name)
        registry.forget(deployment.name)
        raise
    return application


def _note_of(deployment: Deployment, cluster: connection.Cluster) -> registry.Note:
    return registry.Note(
        name=deployment.name,
        address=cluster.address,
        pid=os.getpid(),
        local=cluster.started_here,
        url=deployment.url,
        storage=deployment.storage,
        started=registry.started_of(os.getpid()),
    )


def _create(deployment: Deployment) -> tuple[Any, Any]:
    """Return the coordinator and the ingress, which begin to start."""
    # Owned by this program, an application ends with it; detached, it outlives it.
    lifetime = "non_detached" if deployment.attached else "detached"
    forever: dict[str, Any] = {
        "lifetime": lifetime,
        "namespace": NAMESPACE,
        "max_restarts": -1,
        "max_task_retries": 0,
    }
    coordinator = (
        ray.remote(CoordinatorActor)
        .options(name=coordinator_name(deployment.name), num_cpus=COORDINATOR_CPUS, **forever)
        .remote(deployment)
    )
    ingress = (
        ray.remote(IngressActor)
        .options(
            name=ingress_name(deployment.name, 0),
            num_cpus=INGRESS_CPUS,
            scheduling_strategy=NodeAffinitySchedulingStrategy(deployment.ingress_node, soft=False),
            **forever,
        )
        .remote(deployment, 0)
    )
    return coordinator, ingress


def _wait_ready(deployment: Deployment, coordinator: Any, ingress: Any, say: Callable[[str], None]) -> None:
    """Return when workers run and the ingress serves.

    Raises:
        StartStopped: somebody stopped it before.
        StartFailed: one of them cannot, or not in time.
    """
    name = deployment.name
    deadline = time.monotonic() + READY_S
    finished, serving = coordinator.finished.remote(), ingress.describe.remote()
    asked = coordinator.status.remote()
    status: dict[str, Any] = {"phase": "starting"}
    is_serving = False
    said, said_s = "", 0.0
    while True:
        # First: a coordinator that has ended knows why, takes the ingress along and is killed a second later.
        if _is_there(finished, 0.05):
            ended = _why_ended(name, finished, status)
            if ended is not None:
                raise ended
            finished = coordinator.finished.remote()  # Ray is restarting it
        if not is_serving and _is_there(serving):
            try:
                ray.get(serving)
                is_serving = True
            except ray.exceptions.ActorUnavailableError:
                serving = ingress.describe.remote()
            except ray.exceptions.RayError as error:
                if _is_there(finished, LAST_WORD_S):
                    continue
                cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
                raise StartFailed(name, str(cause).strip()) from error
        if _is_there(asked):
            try:
                status = ray.get(asked)
            except ray.exceptions.ActorUnavailableError:
                pass
            except ray.exceptions.RayError as error:
                if _is_there(finished, LAST_WORD_S):
                    continue
                why = f"its coordinator does not answer ({type(error).__name__})"
                raise StartFailed(name, why) from error
            asked = coordinator.status.remote()
        if status["phase"] == "running" and is_serving:
            return
        now_s = time.monotonic()
        trouble = status.get("last_error", "")
        is_new = trouble != said or now_s - said_s >= SAY_AGAIN_S
        if trouble and is_new and status["phase"] not in ("stopping", "stopped"):
            said, said_s = trouble, now_s
            say(f"trying again: {trouble}")
        if now_s >= deadline:
            raise StartFailed(
                name, f"still {status['phase']} after {READY_S:g} s; {trouble or 'the Ray logs may say more'}"
            )


def _is_there(call: Any, timeout_s: float = 0.0) -> bool:
    done, _ = ray.wait([call], timeout=timeout_s)
    return bool(done)


def _why_ended(name: str, finished: Any, status: dict[str, Any]) -> StartFailed | StartStopped | None:
    """Return why the coordinator has ended, None when Ray is restarting it.

    Args:
        status: the last that was heard of it.
    """
    trouble = status.get("last_error", "")
    try:
        error = ray.get(finished)["error"]
    except ray.exceptions.ActorUnavailableError:
        return None
    except ray.exceptions.RayError:
        if status["phase"] != "stopped" or not trouble:
            trouble = "its coordinator was killed" + (f"; its last trouble was: {trouble}" if trouble else "")
        return StartFailed(name, trouble)
    return StartFailed(name, error) if error else StartStopped(name)


def _check_name_is_free_here(name: str) -> None:
    note = registry.read_note(name)
    if note is not None and note.local:
        raise NameTaken(name, f"at {note.url}, started by process {note.pid} of this machine")


def _check_storage(uri: str) -> ObjectStore:
    try:
        return open_store(uri, probe=True)
    except (CheckpointsError, OSError, ValueError) as error:
        raise StorageUnusable(uri, str(getattr(error, "cause", error))) from error


def _check_log_folder(folder: str) -> None:
    """Fail before anything is started: the ingress, and so its log, is on the machine of this program."""
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise LogFolderUnusable(folder, error.strerror or str(error)) from None


def _adopt(deployment: Deployment, store: ObjectStore, say: Callable[[str], None]) -> tuple[Adoption, bool]:
    """See that the log folder has every log that the storage needs, and that nobody else has it open.

    Returns:
        What there is to go on from, and whether somebody had to be waited for.

    Raises:
        LogInUse: somebody has it open.
        LogsMissing: another log is needed.
        CheckpointsError: the storage is not that of this application, or does not read.
    """
    name, folder = deployment.name, deployment.log_dir
    deadline = time.monotonic() + ORPHANS_GONE_S
    has_waited = False
    while True:
        try:
            return adopt(store, folder, name), has_waited
        except LogLocked:
            note = registry.read_note(name)
            if note is not None:
                raise NameTaken(name, f"at {note.url}, in the Ray cluster at {note.address}") from None
            if time.monotonic() >= deadline:
                raise LogInUse(name, folder) from None
        except CorruptLog as error:
            raise StartFailed(name, str(error)) from None
        if not has_waited:
            has_waited = True
            say(
                f"a living process has the ingress log in {folder} open; waiting up to {ORPHANS_GONE_S:g} s, in case "
                "it was left behind by a program that was killed ..."
            )
        time.sleep(0.1)


def _say_what_goes_on(
    deployment: Deployment, store: ObjectStore, adoption: Adoption, say: Callable[[str], None]
) -> None:
    name, storage, newest = deployment.name, deployment.storage, adoption.newest
    after = f" (from {deployment.named_after})" if deployment.named_after else ""
    goes_on = f"goes on from snapshot {newest.snapshot_id} of" if newest is not None else "new in"
    say(f"name {name}{after}, {goes_on} {storage}")
    last = last_origin(store)
    if deployment.named_after and last and last != deployment.origin:
        say(
            f"warning: {storage} was last used by {last}; {deployment.origin} goes on with its state, because both have "
            f"the name {name} by default; to keep two applications apart, give them names: --name"
        )
    if adoption.is_new_log:
        say(
            f"note: no log that this application has read is in {deployment.log_dir}, so a new one begins there; "
            "nothing that was accepted is missing, but requests that a producer repeats from before are not recognised"
        )


def _note_origin(store: ObjectStore, origin: str) -> None:
    try:
        note_origin(store, origin)
    except CheckpointsError as error:
        logger.warning("who started this application could not be noted: %s", error)


def _with_ports(deployment: Deployment, patience_s: float = 0.0) -> Deployment:
    """Return ``deployment`` with ports that nobody listens on now, wherever they were not chosen.

    Raises:
        PortTaken: somebody listens on the one that was.
        AddressUnusable: the address is not of this machine, or the port not for this user.
    """
    host, port = deployment.http_host, deployment.http_port
    deadline = time.monotonic() + patience_s
    while True:
        try:
            try_port(host, port)
            port, module = choose_ports(host, port, deployment.module)
            break
        except OSError as error:
            is_taken = error.errno == errno.EADDRINUSE
            if not is_taken or time.monotonic() >= deadline:
                wrong = PortTaken if is_taken else AddressUnusable
                raise wrong(host, port, error.strerror or str(error)) from None
            time.sleep(0.05)
    return replace(deployment, http_port=port, module=module)


def _check_cpus(deployment: Deployment) -> None:
    """Fail where Ray would wait for ever.

    Raises:
        NotEnoughCpus: fewer are free than all processes need together.
    """
    deadline = time.monotonic() + CPUS_FREE_S
    while True:
        free = ray.available_resources().get("CPU", 0.0)
        # Sums of decimal fractions: compare in thousandths.
        if round(deployment.cpus, 3) <= round(free, 3):
            return
        if time.monotonic() >= deadline:
            break
        time.sleep(0.2)
    total = ray.cluster_resources().get("CPU", 0.0)
    advice = deployment.that_fits(free)
    raise NotEnoughCpus(
        round(deployment.cpus, 3),
        deployment.cpus_by_role,
        round(free, 3),
        round(total, 3),
        f"say {' or '.join(advice)}" if advice else "stop something, or add nodes",
    )


def _print(line: str) -> None:
    print(line, flush=True)
