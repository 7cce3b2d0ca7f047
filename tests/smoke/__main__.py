"""The long run: ``python -m tests.smoke --interpreter ours --messageCount 100000``.

The parameters of StateFun's own suite have its names. Not among them: ``maxFailures``, which are
``--kills``, ``--crashes`` and ``--endpoint-restarts`` here, and the address of a verification server, as
results come through an egress.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from statefun_ray.local import LocalApplication
from statefun_ray.module.model import Module
from tests.smoke.commands import Parameters
from tests.smoke.drive import INTERPRETERS, Driver, Outcome, SmokeFailed, module_of, service_of
from tests.smoke.services import ours

KILLS_MIN: Final = 5
"""Workers killed in a long run at least; fewer would show little."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run every interpreter asked for, one after the other."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        parameters = parameters_of(arguments)
    except ValueError as error:
        parser.error(str(error))
    if arguments.kills < KILLS_MIN:
        parser.error(f"--kills is {arguments.kills}; a long run kills workers at least {KILLS_MIN} times")
    with contextlib.ExitStack() as stack:
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.ERROR)  # of what is killed on purpose
        if arguments.ray:
            stack.enter_context(_cluster())
        for interpreter in arguments.interpreter or INTERPRETERS:
            print(f"{interpreter}: seed {arguments.seed}, {parameters}", flush=True)
            with tempfile.TemporaryDirectory() as folder:
                outcome = _run(interpreter, Path(folder), parameters, arguments)
            if outcome.kills < KILLS_MIN:
                raise SmokeFailed(
                    f"{outcome.kills} workers were killed, {KILLS_MIN} are the least; {outcome}"
                )
            print(f"{interpreter}: {outcome}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.smoke",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--interpreter", action="append", choices=INTERPRETERS, help="all unless given")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="default: 2")
    parser.add_argument("--kills", type=int, default=10, metavar="N", help=f"default: 10, least: {KILLS_MIN}")
    parser.add_argument("--crashes", type=int, default=1, metavar="N", help="of everything; default: 1")
    parser.add_argument(
        "--endpoint-restarts", type=int, default=3, metavar="N", help="of the service; default: 3"
    )
    parser.add_argument("--timeout", type=float, default=3_600.0, metavar="SECONDS")
    parser.add_argument("--ray", action="store_true", help="on a real Ray cluster, with kill -9")
    original = parser.add_argument_group("parameters of StateFun's suite")
    for field in dataclasses.fields(Parameters):
        kind: Any = _truth if isinstance(field.default, bool) else type(field.default)
        original.add_argument(
            f"--{camel_case(field.name)}",
            dest=field.name,
            type=kind,
            default=field.default,
            metavar={_truth: "BOOL", int: "N", float: "WEIGHT"}[kind],
            help=f"default: {field.default}",
        )
    original.add_argument(
        "--randomGeneratorSeed",
        "--seed",
        dest="seed",
        type=int,
        default=time.time_ns() // 1_000_000,
        metavar="N",
        help="default: the clock",
    )
    return parser


def camel_case(name: str) -> str:
    """Return a name as StateFun's suite spells it."""
    return re.sub(r"_(\w)", lambda found: found[1].upper(), name)


def parameters_of(arguments: argparse.Namespace) -> Parameters:
    """Return what the command line says, checked.

    Raises:
        ValueError: a parameter that nothing can be generated with.
    """
    return Parameters(
        **{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Parameters)}
    )


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text == "true"


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


def _run(interpreter: str, folder: Path, parameters: Parameters, arguments: argparse.Namespace) -> Outcome:
    egress = (folder / "egress").as_uri()
    with service_of(interpreter, folder / "service.log") as service:
        app = _application(interpreter, folder, module_of(service, egress), arguments)
        with app:
            driver = Driver(
                app,
                service,
                egress,
                parameters,
                seed=arguments.seed,
                kills=arguments.kills,
                crashes=arguments.crashes,
                endpoint_restarts=arguments.endpoint_restarts,
                workers=arguments.workers,
                say=lambda line: print(f"  {line}", flush=True),
            )
            return driver.run(arguments.timeout)


if __name__ == "__main__":
    main()
