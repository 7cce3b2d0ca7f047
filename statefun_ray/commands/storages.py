"""``snapshots``, ``verify``, ``sql`` and ``logs``: storages, whether or not their application runs."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Any

from statefun_ray.commands.output import PROG, moment, print_json, print_table


def add_storage_commands(commands: Any) -> None:
    """Add ``snapshots``, ``verify``, ``sql`` and ``logs``."""
    snapshots = commands.add_parser("snapshots", help="list the snapshots in a storage")
    snapshots.add_argument("uri", metavar="URI", help="the storage: file://, s3:// or a folder")
    snapshots.add_argument("--json", action="store_true", help="for programs")
    snapshots.set_defaults(command=_snapshots)
    verify = commands.add_parser("verify", help="check everything in a storage: chain, hashes, conservation")
    verify.add_argument("uri", metavar="URI", help="the storage: file://, s3:// or a folder")
    verify.set_defaults(command=_verify)
    sql = commands.add_parser(
        "sql",
        help="ask the newest snapshot",
        description='Each function type is a table: SELECT * FROM "namespace/type".',
    )
    sql.add_argument("uri", metavar="URI", help="the storage: file://, s3:// or a folder")
    sql.add_argument("query", metavar="QUERY", help="in DuckDB's SQL")
    sql.add_argument("--snapshot", type=int, metavar="ID", help="another one than the newest")
    sql.add_argument("--json", action="store_true", help="a line of JSON for each row")
    sql.set_defaults(command=_sql)
    logs = commands.add_parser(
        "logs",
        help="list the ingress logs that the next start needs, or give one up",
        description="The ingress logs that may hold accepted events which no snapshot has. The next start needs them: "
        "one of them with --log-dir, each other one given up.",
    )
    logs.add_argument("uri", metavar="URI", help="the storage: file://, s3:// or a folder")
    logs.add_argument(
        "--give-up",
        metavar="ID",
        help="forget a log that is gone for good, or for now; says what may be lost with it",
    )
    logs.add_argument("--json", action="store_true", help="a line of JSON for each log")
    logs.set_defaults(command=_logs)


def _snapshots(arguments: argparse.Namespace) -> int:
    from statefun_checkpoints.commit_log import LogReader
    from statefun_checkpoints.errors import NoApplication
    from statefun_checkpoints.resolve import newest_snapshots
    from statefun_checkpoints.retention import SNAPSHOTS_KEPT_DEFAULT
    from statefun_checkpoints.store import open_store, run_store

    store = open_store(storage_of(arguments.uri))
    log = LogReader()
    try:
        run_store(store, log.open())
    except NoApplication:
        raise NoApplication(store.uri) from None
    rows = [_snapshot_row(entry) for entry in run_store(store, newest_snapshots(log, SNAPSHOTS_KEPT_DEFAULT))]
    if arguments.json:
        for row in rows:
            print_json(row)
        return 0
    print_table(rows, empty=f"no snapshot in {store.uri} yet")
    return 0


def _snapshot_row(entry: Any) -> dict[str, Any]:
    created = moment(entry.created_at_ms)
    return {
        "snapshot": entry.snapshot_id,
        "created": created,
        "generation": entry.generation,
        "rhythm": entry.rhythm,
        "workers": entry.worker_count,
        "parts": len(entry.parts),
        "bytes": sum(part.bytes for part in entry.parts),
        "in_flight": entry.in_flight,
    }


def _verify(arguments: argparse.Namespace) -> int:
    from statefun_checkpoints.errors import NoApplication
    from statefun_checkpoints.store import open_store, run_store
    from statefun_checkpoints.verify import verify

    store = open_store(storage_of(arguments.uri))
    try:
        report = run_store(store, verify())
    except NoApplication:
        raise NoApplication(store.uri) from None
    for line in report.lines():
        print(line)
    return 0 if report.is_sound else 1


def _sql(arguments: argparse.Namespace) -> int:
    from statefun_checkpoints.tables import open_checkpoint

    checkpoint = open_checkpoint(storage_of(arguments.uri), arguments.snapshot)
    try:
        table = checkpoint.sql(arguments.query)
    except Exception as error:
        # DuckDB is an extra, so its errors cannot be imported here.
        if type(error).__module__.partition(".")[0] not in ("duckdb", "_duckdb"):
            raise
        tables = ", ".join(f'"{name}"' for name in checkpoint.tables()) or "none"
        print(f"{PROG}: {error}\nThere are these tables: {tables}", file=sys.stderr)
        return 2
    rows: list[dict[str, Any]] = table.to_pylist()
    if arguments.json:
        for row in rows:
            print_json(row)
    else:
        print_table(rows, empty="no rows", columns=table.column_names)
    return 0


def _logs(arguments: argparse.Namespace) -> int:
    from statefun_checkpoints.errors import NoApplication
    from statefun_checkpoints.store import open_store
    from statefun_ray.cluster.errors import BadSetting
    from statefun_ray.io.adoption import give_up, known_logs

    store = open_store(storage_of(arguments.uri))
    name, _, known = known_logs(store)
    if not name and not known:
        raise NoApplication(store.uri)
    if arguments.give_up is not None:
        for log in known:
            if log.log_id == arguments.give_up:
                print(give_up(store, log))
                return 0
        ids = ", ".join(log.log_id for log in known) or "none"
        raise BadSetting("--give-up", arguments.give_up, f"the id of a log that is needed; there are: {ids}")
    rows = []
    for log in known:
        with contextlib.ExitStack() as stack:
            _, events = log.look(stack)
        rows.append({"log": log.log_id, "machine": log.node, "log-dir": log.directory, "events": events})
    if arguments.json:
        for row in rows:
            print_json(row)
        return 0
    print_table(rows, empty=f"no log is needed: every accepted event is in a snapshot of {store.uri}")
    return 0


def storage_of(uri: str) -> str:
    """Return the storage that is meant, with an absolute path."""
    from statefun_ray.cluster.deployment import checked_storage

    return checked_storage(uri, "URI")
