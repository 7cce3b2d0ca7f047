"""The long run: ``python -m tests.smoke --interpreter ours --messages 100000 --instances 128``."""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path

from statefun_ray.local import LocalApplication
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
    arguments = parser.parse_args()
    logging.disable(logging.ERROR)  # of what is killed on purpose
    for interpreter in arguments.interpreter or INTERPRETERS:
        print(f"{interpreter}: seed {arguments.seed}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            _run(interpreter, Path(folder), arguments)


def _run(interpreter: str, folder: Path, arguments: argparse.Namespace) -> None:
    egress = (folder / "egress").as_uri()
    functions = ours.functions if interpreter == "embedded" else None
    with service_of(interpreter, folder / "service.log") as service:
        app = LocalApplication(
            functions,
            module=module_of(service, egress),
            storage=folder / "storage",
            log_dir=folder / "log",
            workers=arguments.workers,
        )
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
