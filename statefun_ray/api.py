"""``statefun_ray.run`` and ``statefun_ray.open_checkpoint``: thin, so that importing them is light."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from statefun_sdk.functions import StatefulFunctions

if TYPE_CHECKING:
    from statefun_checkpoints.tables import Checkpoint


def run(
    functions: StatefulFunctions | str | None = None,
    *,
    module: str | Sequence[str] = (),
    name: str | None = None,
    workers: int = 2,
    worker_cpus: float = 0.25,
    standbys: int | None = None,
    http: str | None = None,
    http_limits: Mapping[str, int] | None = None,
    storage: str | None = None,
    log_dir: str | None = None,
    snapshot_interval: str | float = "1s",
    attached: bool = False,
    sinks: Mapping[str, str] | None = None,
    address: str | None = None,
    allow_open_cluster: bool = False,
) -> None:
    """Run an application on Ray, print where it listens, and stay with it until it ends or is stopped.

    The same program runs on a laptop with nothing started, next to ``ray start --head``, and as
    the entrypoint of ``ray job submit``. Every process of the application imports the module that
    holds ``functions``, so call this under ``if __name__ == "__main__":``.

    Args:
        functions: a global variable of a module, or its name as ``module:variable``; none for an
            application whose functions are all in ``module``.
        module: files in the format of StateFun's module.yaml: remote functions, Kafka, the playground.
        name: of the application, by default that of the module. With the same name and storage
            it goes on from its last snapshot, with any number of workers.
        workers: processes that share the functions' instances among them.
        worker_cpus: logical CPUs of Ray that each of them reserves, and each standby.
        standbys: processes that are started ahead, so that a recovery need not start any; by
            default as many as workers, because a recovery replaces them all.
        http: ``HOST:PORT`` to take events at; port 0 is any free one. By default what ``module``
            says, else 127.0.0.1:8080.
        http_limits: what is taken there in bytes, by the names that ``module`` has for them:
            ``{"bodyBytesMax": 33_554_432}``; they win over it.
        storage: ``file://`` or ``s3://`` URI for snapshots; by default a folder in
            ``~/.statefun-ray``.
        log_dir: folder for accepted events, on the machine this runs on; likewise.
        snapshot_interval: between periodic snapshots, as ``"500ms"``, ``"2s"`` or in seconds.
            Replies do not wait for it.
        attached: the application ends with this program, even on a cluster.
        sinks: egress typename -> URI where its file sink writes.
        address: of the Ray cluster: ``"local"``, ``"auto"`` or ``"HOST:PORT"``. By default that of
            the Ray job or of ``RAY_ADDRESS``, else the head that ``ray start`` left running on this
            machine, else a new local cluster that ends with this program.
        allow_open_cluster: run on a cluster of several nodes without token authentication.

    Raises:
        UserError: an argument has to be changed.
        LaunchError: a port, CPUs, the storage or the cluster are not as they must be.
    """
    from statefun_ray.cluster import signals

    with signals.caught() as caught:
        from statefun_ray.cluster.deployment import HTTP_DEFAULT
        from statefun_ray.cluster.planning import load_module, plan_deployment
        from statefun_ray.module.model import NO_MODULE

        files = [module] if isinstance(module, str) else list(module)
        described = load_module(files) if files else NO_MODULE
        deployment = plan_deployment(
            functions,
            module=described,
            name=name,
            file=files[0] if files and functions is None else "",
            workers=workers,
            worker_cpus=worker_cpus,
            standbys=standbys,
            http=http or described.http_ingress or HTTP_DEFAULT,
            http_limits=http_limits,
            storage=storage,
            log_dir=log_dir,
            snapshot_interval=snapshot_interval,
            attached=attached,
            sinks=sinks,
        )
        # Only now: importing ray takes longer than finding a wrong argument.
        with signals.held():
            from statefun_ray.cluster import launch

        launch.run(deployment, signals=caught, address=address, allow_open_cluster=allow_open_cluster)


def open_checkpoint(uri: str, snapshot: int | None = None) -> Checkpoint:
    """Open a snapshot of an application as tables, with nothing running.

    Args:
        uri: of the storage, ``file://``, ``s3://`` or a folder.
        snapshot: its id; the newest unless given.

    Raises:
        CheckpointsError: there is no application, no such snapshot, or something is damaged.
    """
    from statefun_checkpoints.tables import open_checkpoint as open_tables

    return open_tables(uri, snapshot)
