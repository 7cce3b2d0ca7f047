"""``validate`` and ``simulate``: what needs no application."""

from __future__ import annotations

import argparse
from typing import Any

from statefun_ray.commands.output import print_json


def add_validate(commands: Any) -> None:
    """Add ``validate``."""
    validate = commands.add_parser(
        "validate",
        help="check module.yaml files without starting anything",
        description="Check module.yaml files: every error and warning, as 'file:line: key: text'.",
    )
    validate.add_argument("files", metavar="FILE", nargs="+", help="files that form one application")
    validate.add_argument("--json", action="store_true", help="a line of JSON for each problem")
    validate.set_defaults(command=_validate)


def add_simulate(commands: Any) -> None:
    """Add ``simulate``."""
    simulate = commands.add_parser("simulate", help="run the runtime under seeded faults")
    simulate.add_argument("--seeds", type=int, default=100, metavar="N", help="how many (default: 100)")
    simulate.add_argument("--start", type=int, default=0, metavar="S", help="the first one (default: 0)")
    simulate.add_argument("--jobs", type=int, metavar="J", help="processes (default: one per core)")
    simulate.set_defaults(command=_simulate)


def _validate(arguments: argparse.Namespace) -> int:
    from statefun_ray.cluster.clients import all_problems
    from statefun_ray.module.load import load

    reading = load(arguments.files)
    problems = all_problems(reading, arguments.files)
    for problem in problems:
        if arguments.json:
            print_json(problem.as_json())
        else:
            print(problem)
    errors = sum(problem.severity == "error" for problem in problems)
    if not arguments.json:
        warnings = len(problems) - errors
        module = reading.module
        lacks = not errors and module is not None and not module.endpoints and not module.functions
        print(
            f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"
            + ("; no endpoint and no Python functions: 'run' needs a TARGET besides" if lacks else "")
        )
    return 2 if errors else 0


def _simulate(arguments: argparse.Namespace) -> int:
    from statefun_ray.testing import runner

    return runner.main(arguments.seeds, arguments.start, arguments.jobs)
