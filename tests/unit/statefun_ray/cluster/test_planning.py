from __future__ import annotations

from pathlib import Path

import pytest

from statefun_ray.cluster.errors import BadSetting, BadTarget
from statefun_ray.cluster.planning import plan_deployment
from statefun_ray.module.model import Endpoint, Module, PlaygroundIngress
from statefun_sdk import Context, Message, StatefulFunctions
from statefun_sdk.errors import UserError

functions = StatefulFunctions()


@functions.bind("example/greeter")
def greet(context: Context, message: Message) -> None:
    """Do nothing."""


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STATEFUN_RAY_HOME", str(tmp_path))
    return tmp_path


def test_defaults_keep_everything_under_the_name_of_the_module(own_home: Path) -> None:
    deployment = plan_deployment(functions)
    assert deployment.name == "test-planning"
    assert deployment.storage == (own_home / "test-planning" / "storage").as_uri()
    assert deployment.log_dir == str(own_home / "test-planning" / "log")
    assert (deployment.http_host, deployment.http_port) == ("127.0.0.1", 8080)
    assert deployment.snapshot_interval_ms == 1_000


@pytest.mark.parametrize(("interval", "ms"), [("500ms", 500), (2, 2_000), (0.25, 250)])
def test_an_interval_is_a_text_or_seconds(interval: str | float, ms: int) -> None:
    assert plan_deployment(functions, snapshot_interval=interval).snapshot_interval_ms == ms


def test_limits_of_the_ingress_are_settings_of_it() -> None:
    deployment = plan_deployment(functions, http_limits={"bodyBytesMax": 5, "idBytesMax": 7})
    assert deployment.tuning.ingress == {"body_bytes_max": 5, "id_bytes_max": 7}
    for limits in ({"bodyBytesMax": 0}, {"body_bytes_max": 5}):
        with pytest.raises(BadSetting, match="--http-limit"):
            plan_deployment(functions, http_limits=limits)


def test_there_is_a_standby_for_every_worker_unless_said_otherwise() -> None:
    assert plan_deployment(functions, workers=3).standbys == 3
    assert plan_deployment(functions, workers=3, standbys=0).standbys == 0


def test_every_deployment_has_a_secret_of_its_own() -> None:
    assert plan_deployment(functions).secret != plan_deployment(functions).secret


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (None, "no TARGET was given, and no --module"),
        (
            Module(playground_ingress=PlaygroundIngress()),
            "the module has neither an endpoint nor Python functions",
        ),
    ],
)
def test_an_application_without_functions_is_told_what_is_missing(module: Module | None, words: str) -> None:
    with pytest.raises(
        BadTarget, match=f"there is no function: .*{words}; name module:functions, or a module"
    ):
        plan_deployment(None, module=module)


def test_something_else_than_functions_is_refused() -> None:
    with pytest.raises(BadSetting, match="a StatefulFunctions"):
        plan_deployment(greet)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": 0}, "--workers"),
        ({"worker_cpus": -1.0}, "--worker-cpus"),
        ({"worker_cpus": float("nan")}, "--worker-cpus"),
        ({"worker_cpus": float("inf")}, "--worker-cpus"),
        ({"standbys": -1}, "--standbys"),
        ({"http": "x"}, "--http"),
        ({"storage": "ftp://x"}, "--storage"),
        ({"snapshot_interval": 0.001}, "--snapshot-interval"),
        ({"snapshot_interval": "never"}, "not a duration"),
        ({"sinks": {"a/b": "ftp://x"}}, "--sink a/b"),
        ({"name": "A"}, "--name"),
    ],
)
def test_each_argument_is_checked(options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        plan_deployment(functions, **options)  # type: ignore[arg-type]


def test_a_name_that_nobody_chose_says_where_it_comes_from(tmp_path: Path) -> None:
    module = Module(endpoints=(Endpoint("shop/*", "http://shop/{function.name}"),))
    file = tmp_path / "shop" / "module.yaml"

    planned = plan_deployment(None, module=module, file=f"file:{file}")
    assert (planned.name, planned.named_after) == ("shop", "the folder of the module")
    assert planned.origin == str(file)

    planned = plan_deployment(functions)
    assert (planned.name, planned.named_after) == ("test-planning", "the module")
    assert planned.origin.startswith("tests.unit.statefun_ray.cluster.test_planning:functions in /")

    planned = plan_deployment(functions, name="chosen")
    assert (planned.name, planned.named_after) == ("chosen", "")
