"""The command line: ``statefun-ray run | validate | stop | status | dead-letters | snapshots | …``.

Exit codes: 0 done, 1 the surroundings do not allow it or something is wrong with what was looked
at, 2 the command has to be written differently, 130 interrupted. ``run`` that is interrupted, or gets
SIGTERM, was told to end and exits with 0. What is expected to go wrong is said in a sentence; a
traceback is a bug.

Each command imports what it needs when it is run, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final

from statefun_ray import __version__
from statefun_ray.commands import applications, checks, dead_letters, storages
from statefun_ray.commands.output import PROG

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
    uri = storages.storage_of(arguments.uri)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROG,
        description="Durable, exactly-once stateful functions on Ray.",
        epilog="docs/guide/quick-start.md shows each command at work.",
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    applications.add_run(commands)
    checks.add_validate(commands)
    applications.add_stop(commands)
    applications.add_status(commands)
    dead_letters.add_dead_letters(commands)
    storages.add_storage_commands(commands)
    checks.add_simulate(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
