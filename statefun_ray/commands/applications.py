"""``run``, ``stop`` and ``status``: applications, as they start, run and end."""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from statefun_ray.commands.output import PROG, moment, print_json, print_table

WATCH_DEFAULT: Final = "1s"

RETRYING_SHOWN: Final = 10
"""Addresses of failing functions that status names."""

_RAY_THERE_IS: Final = "that of the Ray job, of RAY_ADDRESS, or of the head that 'ray start' left here"

STOP_SILENT_S: Final = 5.0
"""A stop that takes longer says what it waits for."""


def add_run(commands: Any) -> None:
    """Add ``run``."""
    run = commands.add_parser(
        "run",
        help="run an application and take events over HTTP",
        description="Run an application on Ray: on the cluster of the Ray job or of RAY_ADDRESS, else next to the "
        "head that 'ray start' left running here, else in a local Ray that ends with this command.",
    )
    run.add_argument(
        "target",
        metavar="TARGET",
        nargs="?",
        help="module:functions, for example my_app:functions; not needed with --module",
    )
    run.add_argument(
        "--module",
        action="append",
        default=[],
        metavar="FILE",
        help="a module.yaml: remote functions, Kafka, the playground; may be repeated",
    )
    run.add_argument("--name", help="of the application; that of the module unless given")
    run.add_argument("--workers", type=int, default=2, metavar="N", help="worker processes (default: 2)")
    run.add_argument(
        "--worker-cpus",
        type=float,
        default=0.25,
        metavar="F",
        help="logical CPUs of each worker and standby (default: 0.25)",
    )
    run.add_argument(
        "--standbys",
        type=int,
        metavar="N",
        help="processes started ahead for the next recovery (default: as many as workers)",
    )
    run.add_argument(
        "--http",
        metavar="[HOST:]PORT",
        help="where to take events; port 0 is any free one (default: 127.0.0.1:8080)",
    )
    run.add_argument(
        "--http-limit",
        action="append",
        default=[],
        metavar="NAME=BYTES",
        help="what is taken there and by the playground: bodyBytesMax, bulkBytesMax, headerBytesMax or idBytesMax; may be "
        "repeated (default: 16777216 for the first two, 65536 for the others)",
    )
    run.add_argument(
        "--storage",
        metavar="URI",
        help="file:// or s3:// for snapshots (default: ~/.statefun-ray/NAME/storage)",
    )
    run.add_argument(
        "--log-dir", metavar="DIR", help="folder for accepted events (default: ~/.statefun-ray/NAME/log)"
    )
    run.add_argument(
        "--snapshot-interval",
        default="1s",
        metavar="DURATION",
        help="between periodic snapshots: 500ms, 2s, 1m (default: 1s)",
    )
    run.add_argument(
        "--sink",
        action="append",
        default=[],
        metavar="EGRESS=URI",
        help="where the file sink of an egress writes; may be repeated (default: in the storage)",
    )
    run.add_argument(
        "--attached", action="store_true", help="end the application with this command, also on a cluster"
    )
    add_address(run, f"{_RAY_THERE_IS}, else a new local one")
    run.add_argument(
        "--allow-open-cluster", action="store_true", help="run on several nodes without token authentication"
    )
    run.set_defaults(command=_run)


def add_stop(commands: Any) -> None:
    """Add ``stop``."""
    stop = commands.add_parser("stop", help="end an application with a final snapshot")
    stop.add_argument("name", metavar="NAME")
    stop.add_argument("--now", action="store_true", help="without a final snapshot; nothing accepted is lost")
    add_address(stop)
    stop.set_defaults(command=_stop)


def add_status(commands: Any) -> None:
    """Add ``status``."""
    status = commands.add_parser("status", help="show processes, snapshots and counts of an application")
    status.add_argument("name", metavar="NAME", nargs="?", help="without it, a line for each that runs")
    status.add_argument("--json", action="store_true", help="for programs")
    status.add_argument(
        "--watch",
        nargs="?",
        const=WATCH_DEFAULT,
        metavar="DURATION",
        help="show it again and again, with --json a line each (default: every second)",
    )
    add_address(status)
    status.set_defaults(command=_status)


def add_address(
    parser: argparse.ArgumentParser,
    default: str = f"where NAME was started from here, else {_RAY_THERE_IS}",
) -> None:
    """Add the option that says in which Ray cluster an application is; ``default`` says which else."""
    parser.add_argument(
        "--address",
        metavar="ADDRESS",
        help=f"of the Ray cluster: local, auto or HOST:PORT (default: {default})",
    )


def _run(arguments: argparse.Namespace) -> int:
    from statefun_ray import api

    api.run(
        arguments.target,
        module=arguments.module,
        name=arguments.name,
        workers=arguments.workers,
        worker_cpus=arguments.worker_cpus,
        standbys=arguments.standbys,
        http=arguments.http,
        http_limits=_limits(arguments.http_limit),
        storage=arguments.storage,
        log_dir=arguments.log_dir,
        snapshot_interval=arguments.snapshot_interval,
        sinks=_sinks(arguments.sink),
        attached=arguments.attached,
        address=arguments.address,
        allow_open_cluster=arguments.allow_open_cluster,
    )
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    from statefun_ray.cluster import operate

    def say() -> None:
        text = f"{arguments.name} has not ended yet: {operate.waited_for(arguments.name)}; --now waits for nothing"
        print(text, file=sys.stderr, flush=True)

    patience = threading.Timer(STOP_SILENT_S, say)
    patience.daemon = True
    patience.start()
    try:
        outcome = operate.stop(arguments.name, arguments.address, now=arguments.now)
    finally:
        patience.cancel()
    snapshot = outcome.get("last_snapshot")
    if outcome.get("error"):
        print(
            f"{PROG}: {arguments.name} has ended, but not as it should: {outcome['error']}", file=sys.stderr
        )
        return 1
    how = f"with snapshot {snapshot['id']}" if snapshot else "without a final snapshot"
    print(f"{arguments.name} has ended {how}")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from statefun_ray.cluster import operate
    from statefun_ray.durations import parse_duration_ms

    if arguments.name is None:
        return _status_of_all(arguments)
    show = print_json if arguments.json else _print_status
    if arguments.watch is None:
        show(operate.status(arguments.name, arguments.address))
        return 0
    pause_s = parse_duration_ms(arguments.watch) / 1000
    for status in operate.statuses(arguments.name, arguments.address):
        show(status)
        time.sleep(pause_s)
    return 0


def _status_of_all(arguments: argparse.Namespace) -> int:
    from statefun_ray.cluster import operate
    from statefun_ray.cluster.deployment import summary_of
    from statefun_ray.cluster.errors import BadSetting

    if arguments.watch is not None:
        raise BadSetting("status --watch", "no NAME", "the NAME of one application")
    found = operate.all_statuses(arguments.address)
    for status in found:
        if arguments.json:
            print_json(status)
        elif "phase" in status:
            print(f"{status['name']} at {status['url']}: {summary_of(status)}")
        else:
            print(status["last_error"])
    if not found:
        print("no application runs, as far as is known here", file=sys.stderr)
    return 0


def _sinks(texts: Sequence[str]) -> dict[str, str]:
    from statefun_ray.cluster.errors import BadSetting

    sinks = {}
    for text in texts:
        egress, equals, uri = text.partition("=")
        if not equals or "/" not in egress or not uri:
            raise BadSetting(
                "--sink", text, "NAMESPACE/NAME=URI, for example shop/receipts=file:///var/receipts"
            )
        sinks[egress] = uri
    return sinks


def _limits(texts: Sequence[str]) -> dict[str, int]:
    from statefun_ray.cluster.errors import BadSetting

    limits = {}
    for text in texts:
        name, _, number = text.partition("=")
        if not re.fullmatch("[0-9]{1,18}", number):
            raise BadSetting("--http-limit", text, "NAME=BYTES, for example bodyBytesMax=33554432")
        limits[name] = int(number)
    return limits


def _print_status(status: dict[str, Any]) -> None:
    from statefun_ray.cluster.deployment import summary_of

    print(f"{status['name']} at {status['url']}")
    for side, url in status.get("playground", {}).items():
        print(f"playground {side} at {url}")
    print(summary_of(status))
    print(f"snapshots in {status['storage']}")
    if status.get("last_error"):
        print(f"last trouble: {status['last_error']}")
    columns = ["role", "index", "pid", "node", "state"]
    # What a worker is waiting for, where one waits: a function that takes long, a sink that is silent.
    columns += [
        name for name in ("busy_with", "trouble") if any(row.get(name) for row in status["processes"])
    ]
    print_table(status["processes"], empty="no process", columns=columns)
    if status.get("retrying"):
        _print_retrying(status["retrying"], status["retrying_addresses"])
    if status.get("dead_letters"):
        print(f"dead letters: {status['dead_letters']}, see: {PROG} dead-letters {status['name']} list")
    for parked in status.get("parked_addresses", []):
        print(
            f"parked: {parked['function']}/{parked['id']} with {parked['messages']} messages: {parked['error']}"
        )


def _print_retrying(count: int, addresses: Sequence[dict[str, Any]]) -> None:
    shown = sorted(addresses, key=lambda address: address["since_ms"])[:RETRYING_SHOWN]
    print(
        f"a function fails and is tried again at {count} address{'es' * (count != 1)}"
        + (f", {len(shown)} of them:" if len(shown) < count else ":")
    )
    rows = [
        {
            "address": f"{address['function']}/{address['id']}",
            "attempts": address["attempts"],
            "since": moment(address["since_ms"]),
            "next": "now" if address["next_attempt_ms"] is None else moment(address["next_attempt_ms"]),
            "error": textwrap.shorten(address["error"], 100),
        }
        for address in shown
    ]
    print_table(rows, empty="")
