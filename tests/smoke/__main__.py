"""The long run: ``python -m tests.smoke --interpreter ours --messages 100000 --instances 128``."""

from __future__ import annotations

import argparse
import contextlib
import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from statefun_ray.local import LocalApplication
from statefun_ray.module.model import Module
from tests.smoke.drive import INTERPRETERS, Driver, module_of, service_of
from tests.smoke.services import ours


def main() -> None:
    """Run every interpreter asked for, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interpreter", action="append", choices=INTERPRETERS, help="all unless given")
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--instances", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--timeout", type=float, default=3_600.0, metavar="SECONDS")
    parser.add_argument("--ray", action="store_true", help="on a real Ray cluster, with kill -9")
    arguments = parser.parse_args()
    logging.disable(logging.ERROR)  # of what is killed on purpose
    with contextlib.ExitStack() as stack:
        if arguments.ray:
            stack.enter_context(_cluster())
        for interpreter in arguments.interpreter or INTERPRETERS:
            print(f"{interpreter}: seed {arguments.seed}", flush=True)
            with tempfile.TemporaryDirectory() as folder:
                _run(interpreter, Path(folder), arguments)


@contextlib.contextmanager
def _cluster() -> Iterator[None]:
    from statefun_ray.cluster import connection

    cluster = connection.connect(connection.LOCAL, cpus=4)
    try:
        yield
    finally:
        cluster.leave()


def _application(interpreter: str, folder: Path, module: Module, arguments: argparse.Namespace) -> Any:
    if arguments.ray:
        from tests.cluster.application import ClusterApplication

        target = "tests.smoke.services.ours:functions" if interpreter == "embedded" else None
        return ClusterApplication(target, folder, module=module, workers=arguments.workers, name="smoke")
    return LocalApplication(
        ours.functions if interpreter == "embedded" else None,
        module=module,
        storage=folder / "storage",
        log_dir=folder / "log",
        workers=arguments.workers,
    )


def _run(interpreter: str, folder: Path, arguments: argparse.Namespace) -> None:
    egress = (folder / "egress").as_uri()
    with service_of(interpreter, folder / "service.log") as service:
        app = _application(interpreter, folder, module_of(service, egress), arguments)
        with app:
            driver = Driver(
                app,
                service,
                egress,
                seed=arguments.seed,
                messages=arguments.messages,
                instances=arguments.instances,
                kills=arguments.kills,
                endpoint_restarts=3,
                workers=arguments.workers,
                say=lambda line: print(f"  {line}", flush=True),
            )
            print(f"{interpreter}: {driver.run(arguments.timeout)}", flush=True)


if __name__ == "__main__":
    main()
