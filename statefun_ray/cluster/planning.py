"""From what a user says to a `Deployment`: every argument checked, every default filled in.

Needs no ray, so a wrong command is answered at once.
"""

from __future__ import annotations

import math
import re
import secrets
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from statefun_ingress.config import LIMITS
from statefun_ray.cluster import registry
from statefun_ray.cluster.clients import INSTALL, NOT_INSTALLED, all_problems, needs_kafka
from statefun_ray.cluster.deployment import (
    HTTP_DEFAULT,
    SNAPSHOT_INTERVAL_MS_DEFAULT,
    WORKER_CPUS_DEFAULT,
    WORKERS_DEFAULT,
    Deployment,
    Tuning,
    checked_name,
    checked_snapshot_interval,
    checked_standbys,
    checked_storage,
    checked_workers,
    name_for,
    parse_http,
)
from statefun_ray.cluster.errors import BadModule, BadSetting, BadTarget
from statefun_ray.cluster.target import (
    AppSource,
    check_not_importing,
    load_functions,
    source_of_functions,
    source_of_targets,
)
from statefun_ray.durations import parse_duration_ms
from statefun_ray.module.load import load
from statefun_ray.module.locations import path_of
from statefun_ray.module.model import NO_MODULE, Module
from statefun_sdk.functions import StatefulFunctions


def plan_deployment(
    functions: StatefulFunctions | str | None,
    *,
    module: Module | None = None,
    name: str | None = None,
    workers: int = WORKERS_DEFAULT,
    worker_cpus: float = WORKER_CPUS_DEFAULT,
    standbys: int | None = None,
    http: str = HTTP_DEFAULT,
    http_limits: Mapping[str, int] | None = None,
    storage: str | None = None,
    log_dir: str | None = None,
    snapshot_interval: str | int | float = SNAPSHOT_INTERVAL_MS_DEFAULT / 1000,
    attached: bool = False,
    sinks: Mapping[str, str] | None = None,
    tuning: Tuning | None = None,
    file: str = "",
) -> Deployment:
    """Return what `run` with these arguments deploys.

    Args:
        file: of an application that is only a module.yaml.

    Raises:
        UserError: an argument cannot be used.
    """
    check_not_importing()
    module = module or NO_MODULE
    source = _source_of(functions, module)
    if not source.targets and not module.endpoints:
        lacks = (
            "no --module"
            if module is NO_MODULE
            else "the module has neither an endpoint nor Python functions"
        )
        raise BadTarget(
            "run",
            f"there is no function: no TARGET was given, and {lacks}",
            "name module:functions, or a module with io.statefun.endpoints.v2/http or "
            "io.statefun-ray.v1/python-functions in it",
        )
    _check_clients(module)
    named_after = ""
    if name is None:
        named_after = "the folder of the module" if file else "the module"
        name = name_of_module(file) if file else name_for(source)
    name = checked_name(name)
    host, port = parse_http(http)
    kept = registry.home() / name
    if not 0 < worker_cpus < math.inf:
        # Without any, an autoscaler sees an idle node and takes it away.
        raise BadSetting("--worker-cpus", f"{worker_cpus:g}", "more than 0, for example 0.5")
    if isinstance(snapshot_interval, str):
        interval_ms = parse_duration_ms(snapshot_interval)
    else:
        interval_ms = round(snapshot_interval * 1000)
    workers = checked_workers(workers)
    return Deployment(
        name=name,
        source=source,
        module=module,
        workers=workers,
        worker_cpus=worker_cpus,
        http_host=host,
        http_port=port,
        storage=checked_storage(storage or str(kept / "storage")),
        log_dir=str(Path(log_dir).expanduser().absolute() if log_dir else kept / "log"),
        snapshot_interval_ms=checked_snapshot_interval(interval_ms),
        standbys=checked_standbys(workers if standbys is None else standbys),
        sinks={egress: checked_storage(uri, f"--sink {egress}=URI") for egress, uri in (sinks or {}).items()},
        attached=attached,
        secret=secrets.token_bytes(32),
        tuning=_with_limits(tuning or Tuning(), http_limits or {}),
        named_after=named_after,
        origin=str(Path(path_of(file)).absolute())
        if file
        else f"{', '.join(source.targets)} in {source.sys_path[-1]}",
    )


def _with_limits(tuning: Tuning, limits: Mapping[str, int]) -> Tuning:
    settings = {}
    for name, bytes_max in limits.items():
        if name not in LIMITS:
            raise BadSetting("--http-limit", name, f"one of {', '.join(LIMITS)}")
        setting, most = LIMITS[name]
        if not 1 <= bytes_max <= most:
            raise BadSetting(f"--http-limit {name}", str(bytes_max), f"1 to {most}")
        settings[setting] = bytes_max
    return replace(tuning, ingress={**tuning.ingress, **settings})


def _source_of(functions: StatefulFunctions | str | None, module: Module) -> AppSource:
    targets = (() if functions is None else (functions,)) + module.functions
    names = tuple(target for target in targets if isinstance(target, str))
    if len(names) == len(targets):
        source = source_of_targets(*names)
        bound = load_functions(source).functions  # wrong names are the user's to fix, before anything starts
        _check_served_once(bound, module)
        return source
    if module.functions:
        raise BadSetting(
            "functions",
            "a StatefulFunctions and a module with Python functions",
            "its name as 'module:variable', so that both are imported alike",
        )
    if not isinstance(functions, StatefulFunctions):
        raise BadSetting(
            "functions", type(functions).__name__, "a StatefulFunctions, or 'module:name' of one"
        )
    _check_served_once(functions.functions, module)
    return source_of_functions(functions)


def load_module(files: Sequence[str]) -> Module:
    """Return the application that module.yaml files describe; warnings go to standard error.

    Raises:
        BadModule: they cannot be used.
    """
    reading = load(files)
    problems = all_problems(reading, files)
    errors = tuple(str(problem) for problem in problems if problem.severity == "error")
    if reading.module is None or errors:
        raise BadModule(errors)
    for warning in problems:
        print(warning, file=sys.stderr)
    return reading.module


def name_of_module(file: str) -> str:
    """Return the name of an application that is only a module.yaml: that of its folder."""
    folder = Path(path_of(file)).absolute().parent.name
    return re.sub(r"[^a-z0-9]+", "-", folder.lower()).strip("-")[:48].strip("-") or "app"


def _check_clients(module: Module) -> None:
    if not needs_kafka(module):
        return
    try:
        from statefun_ray.io.kafka.check import check_clients
        from statefun_ray.io.kafka.properties import raise_errors
    except ModuleNotFoundError as error:
        if error.name != "confluent_kafka":
            raise
        raise BadSetting("the module", f"Kafka in it, and {NOT_INSTALLED}", INSTALL) from None
    check_clients(module, raise_errors)  # the rest was said when the file was read, or is said by the workers


def _check_served_once(bound: Iterable[str], module: Module) -> None:
    for endpoint in module.endpoints:
        if endpoint.functions in bound:
            raise BadSetting(
                "functions",
                f"{endpoint.functions} bound in Python and served by {endpoint.url_template}",
                "one of them",
            )
