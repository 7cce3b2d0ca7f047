"""The command line: ``statefun-ray run | validate | stop | status | dead-letters | snapshots | …``.

Exit codes: 0 done, 1 the surroundings do not allow it or something is wrong with what was looked
at, 2 the command has to be written differently, 130 interrupted. What is expected to go wrong is
said in a sentence; a traceback is a bug.

Each command imports what it needs when it is run, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from statefun_ray import __version__

PROG: Final = "statefun-ray"

_WATCH_DEFAULT: Final = "1s"

# Addresses of failing functions that status names.
_RETRYING_SHOWN: Final = 10

# As many letters as an ingress says at once.
_LETTERS_OF_ID_MAX: Final = 1_000

# A stop that takes longer says what it waits for.
_STOP_SILENT_S = 5.0

# What the extra [runtime] brings, by the names of the imports.
_RUNTIME_MODULES: Final = frozenset(
    {
        "aiohttp",
        "fastapi",
        "httptools",
        "msgspec",
        "pyarrow",
        "ray",
        "s3fs",
        "uvicorn",
        "uvloop",
        "xxhash",
        "yaml",
    }
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough; nothing is left to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _RUNTIME_MODULES:
            raise
        print(
            f"{PROG}: {error.name} is not installed; the base install is for containers of functions, "
            "all else needs: pip install 'statefun-ray[runtime]'",
            file=sys.stderr,
        )
        return 1
    except Exception as error:
        exit_code = _exit_code_of(error)
        if exit_code is None:
            raise
        print(f"{PROG}: {_with_storage(_text_of(error), exit_code, arguments)}", file=sys.stderr)
        return exit_code


def _with_storage(text: str, exit_code: int, arguments: argparse.Namespace) -> str:
    """Return ``text`` with the storage it is about, which names objects relative to itself."""
    if exit_code == 2 or not hasattr(arguments, "uri"):
        return text
    uri = _storage(arguments.uri)
    return text if uri in text else f"{uri}: {text}"


def _text_of(error: Exception) -> str:
    if "statefun_checkpoints.errors" in sys.modules:
        from statefun_checkpoints.errors import CheckpointsError, advised

        if isinstance(error, CheckpointsError):
            return advised(error)
    return str(error)


def _exit_code_of(error: Exception) -> int | None:
    """Return 2 for a wrong command, 1 for what is wrong around it, None for a bug of ours."""
    from statefun_sdk.errors import StateFunError, UserError

    if isinstance(error, UserError):
        return 2
    if isinstance(error, StateFunError):
        return 1
    if "statefun_checkpoints.errors" in sys.modules:
        from statefun_checkpoints.errors import CheckpointsError

        if isinstance(error, CheckpointsError):
            return 1
    return None


# --- the grammar --------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROG,
        description="Durable, exactly-once stateful functions on Ray.",
        epilog="docs/guide/quick-start.md shows each command at work.",
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_run(commands)
    _add_validate(commands)
    _add_stop(commands)
    _add_status(commands)
    _add_dead_letters(commands)
    _add_storage_commands(commands)
    _add_simulate(commands)
    return parser


def _add_run(commands: Any) -> None:
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
        metavar="HOST:PORT",
        help="where to take events; port 0 is any free one (default: 127.0.0.1:8080)",
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
    _add_address(run)
    run.add_argument(
        "--allow-open-cluster", action="store_true", help="run on several nodes without token authentication"
    )
    run.set_defaults(command=_run)


def _add_validate(commands: Any) -> None:
    validate = commands.add_parser(
        "validate",
        help="check module.yaml files without starting anything",
        description="Check module.yaml files: every error and warning, as 'file:line: key: text'.",
    )
    validate.add_argument("files", metavar="FILE", nargs="+", help="files that form one application")
    validate.add_argument("--json", action="store_true", help="a line of JSON for each problem")
    validate.set_defaults(command=_validate)


def _add_stop(commands: Any) -> None:
    stop = commands.add_parser("stop", help="end an application with a final snapshot")
    stop.add_argument("name", metavar="NAME")
    stop.add_argument("--now", action="store_true", help="without a final snapshot; nothing accepted is lost")
    _add_address(stop)
    stop.set_defaults(command=_stop)


def _add_status(commands: Any) -> None:
    status = commands.add_parser("status", help="show processes, snapshots and counts of an application")
    status.add_argument("name", metavar="NAME")
    status.add_argument("--json", action="store_true", help="for programs")
    status.add_argument(
        "--watch",
        nargs="?",
        const=_WATCH_DEFAULT,
        metavar="DURATION",
        help="show it again and again, with --json a line each (default: every second)",
    )
    _add_address(status)
    status.set_defaults(command=_status)


def _add_dead_letters(commands: Any) -> None:
    letters = commands.add_parser(
        "dead-letters",
        help="messages that nobody could process: list, show, redrive, drop",
        description="Messages that nobody could process. A letter is named ID/LETTER, as list shows it.",
    )
    letters.add_argument("name", metavar="NAME")
    letters.add_argument("action", choices=("list", "show", "redrive", "drop"))
    letters.add_argument("letters", metavar="ID/LETTER", nargs="*", help="the letters meant")
    letters.add_argument("--function", metavar="TYPE", help="those of one function type")
    letters.add_argument("--all", action="store_true", help="all of them")
    letters.add_argument("--limit", type=int, default=100, metavar="N", help="to list (default: 100)")
    letters.add_argument("--json", action="store_true", help="a line of JSON for each letter")
    _add_address(letters)
    letters.set_defaults(command=_dead_letters)


def _add_storage_commands(commands: Any) -> None:
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


def _add_simulate(commands: Any) -> None:
    simulate = commands.add_parser("simulate", help="run the runtime under seeded faults")
    simulate.add_argument("--seeds", type=int, default=100, metavar="N", help="how many (default: 100)")
    simulate.add_argument("--start", type=int, default=0, metavar="S", help="the first one (default: 0)")
    simulate.add_argument("--jobs", type=int, metavar="J", help="processes (default: one per core)")
    simulate.set_defaults(command=_simulate)


def _add_address(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--address",
        metavar="ADDRESS",
        help="of the Ray cluster: local, auto or HOST:PORT (default: see 'run --help')",
    )


# --- the commands -------------------------------------------------------------------------------


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
        storage=arguments.storage,
        log_dir=arguments.log_dir,
        snapshot_interval=arguments.snapshot_interval,
        sinks=_sinks(arguments.sink),
        attached=arguments.attached,
        address=arguments.address,
        allow_open_cluster=arguments.allow_open_cluster,
    )
    return 0


def _validate(arguments: argparse.Namespace) -> int:
    from statefun_ray.cluster.clients import all_problems
    from statefun_ray.module.load import load

    reading = load(arguments.files)
    problems = all_problems(reading, arguments.files)
    for problem in problems:
        if arguments.json:
            _print_json(problem.as_json())
        else:
            print(problem)
    errors = sum(problem.severity == "error" for problem in problems)
    if not arguments.json:
        warnings = len(problems) - errors
        print(f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}")
    return 2 if errors else 0


def _stop(arguments: argparse.Namespace) -> int:
    from statefun_ray.cluster import operate

    slow = (
        f"{arguments.name} has not ended yet: functions at work are waited for ('{PROG} status {arguments.name}' "
        "shows which); --now waits for nothing"
    )
    patience = threading.Timer(_STOP_SILENT_S, print, [slow], {"file": sys.stderr, "flush": True})
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

    show = _print_json if arguments.json else _print_status
    if arguments.watch is None:
        show(operate.status(arguments.name, arguments.address))
        return 0
    pause_s = parse_duration_ms(arguments.watch) / 1000
    for status in operate.statuses(arguments.name, arguments.address):
        show(status)
        time.sleep(pause_s)
    return 0


def _dead_letters(arguments: argparse.Namespace) -> int:
    from statefun_ray.cluster import operate
    from statefun_ray.cluster.errors import BadSetting
    from statefun_ray.io.client import HttpClient, RequestFailed

    named = []
    for text in arguments.letters:
        id, slash, letter = text.rpartition("/")
        if not slash or not id or not letter:
            raise BadSetting("a letter", text, "ID/LETTER, as list shows it")
        named.append({"id": id, "letter": letter})
    client = HttpClient(operate.url_of(arguments.name, arguments.address))
    try:
        if arguments.action in ("list", "show"):
            return _show_letters(client, arguments, named)
        choice: dict[str, Any] = {"letters": named} if named else {}
        if arguments.function:
            choice["function"] = arguments.function
        if arguments.all:
            choice["all"] = True
        if len(choice) != 1:
            raise BadSetting(
                arguments.action, "nothing or several things", "letters by name, --function TYPE, or --all"
            )
        told, has_more, kept = client.tell_dead_letters(arguments.action, choice)
    except RequestFailed as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{PROG}: {arguments.name} does not answer at {client.url}: {error}", file=sys.stderr)
        return 1
    finally:
        client.close()
    what = "delivered once more" if arguments.action == "redrive" else "dropped"
    if arguments.json:
        _print_json({"action": arguments.action, "told": told, "more": has_more, "without_address": kept})
    else:
        print(f"{told} letter{'s' * (told != 1)} will be {what}")
        if kept:
            print(
                f"{kept} stay{'s' * (kept == 1)}: records that could not become messages have no address; drop them"
            )
        if has_more:
            print("there are more: say it once more when these are gone")
    return 0


def _show_letters(client: Any, arguments: argparse.Namespace, named: Sequence[dict[str, str]]) -> int:
    from statefun_ray.cluster.errors import BadSetting

    if arguments.action == "show" and not named:
        raise BadSetting("show", "no letter", "ID/LETTER, as list shows it")
    if named:
        letters, missing = _named_letters(client, named, arguments.function or "")
        if missing:
            for text in missing:
                print(f"{PROG}: {text}", file=sys.stderr)
            return 1
        count, is_cut = len(letters), False
    else:
        found = client.dead_letters(function=arguments.function or "", limit=arguments.limit)
        letters, count, is_cut = found["dead_letters"], found["count"], found["more"]
    if arguments.json or arguments.action == "show":
        for letter in letters:
            if arguments.json:
                _print_json(letter)
            else:
                print("\n".join(f"{name}: {value}" for name, value in letter.items()))
        return 0
    rows = [
        {
            "letter": f"{letter['id']}/{letter['letter']}",
            "function": letter["function"],
            "type": letter["type"],
            "attempts": letter["attempts"],
            "last failed": _moment(letter["last_failed_ms"]),
            "error": letter["error"],
        }
        for letter in letters
    ]
    _print_table(rows, empty="no dead letters")
    if count > len(letters) or is_cut:
        print(f"{'at least ' * is_cut}{count - len(letters)} more")
    return 0


def _named_letters(
    client: Any, named: Sequence[dict[str, str]], function: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return letters by name, in the order of ``named``, and a sentence for each that was not found."""
    letters: list[dict[str, Any]] = []
    missing: list[str] = []
    # Asked for by id: of all letters together only the first so many are said.
    found = {
        id: client.dead_letters(function=function, id=id, limit=_LETTERS_OF_ID_MAX)
        for id in dict.fromkeys(name["id"] for name in named)
    }
    for name in named:
        of_id = found[name["id"]]
        [letter] = [x for x in of_id["dead_letters"] if x["letter"] == name["letter"]] or [None]
        if letter is not None:
            letters.append(letter)
            continue
        text = f"there is no letter {name['id']}/{name['letter']}"
        if function:
            text += f" of {function}"
        missing.append(
            f"{text} among the oldest {len(of_id['dead_letters']):,} of this id; redrive or drop some of them"
            if of_id["more"]
            else f"{text} (any more); list shows those there are"
        )
    return letters, missing


def _moment(ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ms / 1000))


def _snapshots(arguments: argparse.Namespace) -> int:
    from statefun_checkpoints.commit_log import LogReader
    from statefun_checkpoints.errors import NoApplication
    from statefun_checkpoints.resolve import newest_snapshots
    from statefun_checkpoints.retention import SNAPSHOTS_KEPT_DEFAULT
    from statefun_checkpoints.store import open_store, run_store

    store = open_store(_storage(arguments.uri))
    log = LogReader()
    try:
        run_store(store, log.open())
    except NoApplication:
        raise NoApplication(store.uri) from None
    rows = [_snapshot_row(entry) for entry in run_store(store, newest_snapshots(log, SNAPSHOTS_KEPT_DEFAULT))]
    if arguments.json:
        for row in rows:
            _print_json(row)
        return 0
    _print_table(rows, empty=f"no snapshot in {store.uri} yet")
    return 0


def _snapshot_row(entry: Any) -> dict[str, Any]:
    created = _moment(entry.created_at_ms)
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

    store = open_store(_storage(arguments.uri))
    try:
        report = run_store(store, verify())
    except NoApplication:
        raise NoApplication(store.uri) from None
    for line in report.lines():
        print(line)
    return 0 if report.is_sound else 1


def _sql(arguments: argparse.Namespace) -> int:
    from statefun_checkpoints.tables import open_checkpoint

    checkpoint = open_checkpoint(_storage(arguments.uri), arguments.snapshot)
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
            _print_json(row)
    else:
        _print_table(rows, empty="no rows", columns=table.column_names)
    return 0


def _simulate(arguments: argparse.Namespace) -> int:
    from statefun_ray.testing import runner

    return runner.main(arguments.seeds, arguments.start, arguments.jobs)


# --- helpers ------------------------------------------------------------------------------------


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


def _storage(uri: str) -> str:
    from statefun_ray.cluster.deployment import checked_storage

    return checked_storage(uri, "URI")


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, default=_as_json), flush=True)


def _as_json(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


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
    _print_table(status["processes"], empty="no process", columns=columns)
    if status.get("retrying"):
        _print_retrying(status["retrying"], status["retrying_addresses"])
    if status.get("dead_letters"):
        print(f"dead letters: {status['dead_letters']}, see: {PROG} dead-letters {status['name']} list")
    for parked in status.get("parked_addresses", []):
        print(
            f"parked: {parked['function']}/{parked['id']} with {parked['messages']} messages: {parked['error']}"
        )


def _print_retrying(count: int, addresses: Sequence[dict[str, Any]]) -> None:
    shown = sorted(addresses, key=lambda address: address["since_ms"])[:_RETRYING_SHOWN]
    print(
        f"a function fails and is tried again at {count} address{'es' * (count != 1)}"
        + (f", {len(shown)} of them:" if len(shown) < count else ":")
    )
    rows = [
        {
            "address": f"{address['function']}/{address['id']}",
            "attempts": address["attempts"],
            "since": _moment(address["since_ms"]),
            "next": "now" if address["next_attempt_ms"] is None else _moment(address["next_attempt_ms"]),
            "error": textwrap.shorten(address["error"], 100),
        }
        for address in shown
    ]
    _print_table(rows, empty="")


def _print_table(rows: Sequence[dict[str, Any]], *, empty: str, columns: Sequence[str] | None = None) -> None:
    """Print rows in columns as wide as their widest cell, numbers to the right."""
    if not rows:
        print(empty)
        return
    names = list(columns or rows[0])
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(names)]
    numeric = [all(isinstance(row.get(name), int | float | None) for row in rows) for name in names]
    for line in [names, ["-" * width for width in widths], *cells]:
        aligned = (
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        )
        print("  ".join(aligned).rstrip())


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict | list):
        return json.dumps(value, default=_as_json)
    return str(value)


if __name__ == "__main__":
    sys.exit(main())
