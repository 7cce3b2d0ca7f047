from __future__ import annotations

from pathlib import Path

import pytest

from statefun_ray.cluster.deployment import (
    WORKER_CPUS_DEFAULT,
    Deployment,
    application_of,
    checked_name,
    checked_snapshot_interval,
    checked_standbys,
    checked_storage,
    checked_workers,
    coordinator_name,
    name_for,
    parse_http,
    summary_of,
)
from statefun_ray.cluster.errors import BadSetting
from statefun_ray.cluster.target import AppSource
from statefun_ray.module.model import Module


def deployment(host: str = "127.0.0.1", workers: int = 2, standbys: int = 2) -> Deployment:
    return Deployment(
        name="shop",
        source=AppSource(("shop:functions",), ()),
        module=Module(),
        workers=workers,
        worker_cpus=WORKER_CPUS_DEFAULT,
        standbys=standbys,
        http_host=host,
        http_port=8080,
        storage="file:///s",
        log_dir="/l",
        snapshot_interval_ms=1000,
        secret=b"hidden",
    )


def test_two_workers_and_their_standbys_fit_on_two_cores() -> None:
    assert deployment().cpus <= 2
    assert deployment().cpus_by_role == (
        "2 workers x 0.25 + 2 standbys x 0.25 + ingress 0.25 + coordinator 0.1"
    )
    assert "standbys" not in deployment(standbys=0).cpus_by_role


@pytest.mark.parametrize(
    ("workers", "standbys", "free", "advice"),
    [
        (2, 2, 1.0, ["--standbys 0", "--workers 1", "--worker-cpus 0.16"]),
        (2, 2, 1.1, ["--standbys 1", "--workers 1", "--worker-cpus 0.18"]),
        (9, 9, 4.0, ["--standbys 5", "--workers 7", "--worker-cpus 0.2"]),
        (4, 1, 1.35, ["--standbys 0", "--workers 3", "--worker-cpus 0.2"]),
        (4, 4, 0.6, ["--worker-cpus 0.03"]),
        (2, 2, 0.35, []),
    ],
)
def test_what_is_too_much_is_told_what_would_fit(
    workers: int, standbys: int, free: float, advice: list[str]
) -> None:
    assert deployment(workers=workers, standbys=standbys).that_fits(free) == advice


def test_the_secret_is_not_shown() -> None:
    assert "hidden" not in repr(deployment())


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::1", "http://[::1]:8080"),
    ],
)
def test_the_url_is_one_that_can_be_opened(host: str, url: str) -> None:
    assert deployment(host).url == url


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        (":9000", ("127.0.0.1", 9000)),
        ("9000", ("127.0.0.1", 9000)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::1]:80", ("::1", 80)),
    ],
)
def test_http_is_a_host_and_a_port(text: str, expected: tuple[str, int]) -> None:
    assert parse_http(text) == expected


@pytest.mark.parametrize(
    "text", ["", "localhost", "localhost:http", "localhost:70000", "http://localhost:80"]
)
def test_another_http_is_refused(text: str) -> None:
    with pytest.raises(BadSetting, match="HOST:PORT"):
        parse_http(text)


def test_storage_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert checked_storage("data") == (tmp_path / "data").as_uri()
    assert checked_storage("file://data/x") == (tmp_path / "data" / "x").as_uri()
    assert checked_storage("file:///data") == "file:///data"
    assert checked_storage("s3://bucket/prefix") == "s3://bucket/prefix"
    assert checked_storage("~/x") == (Path.home() / "x").as_uri()
    with pytest.raises(BadSetting, match="file:///folder"):
        checked_storage("http://host/x")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("my_app", "my-app"),
        ("examples.greeter.main", "greeter"),
        ("main", "main"),
        ("shop.app", "shop"),
        ("___", "app"),
    ],
)
def test_an_application_is_called_like_its_module(module: str, name: str) -> None:
    assert name_for(AppSource((f"{module}:functions",), ())) == name
    assert checked_name(name) == name


@pytest.mark.parametrize("name", ["", "My App", "a.b", "-a", "x" * 49])
def test_odd_names_are_refused(name: str) -> None:
    with pytest.raises(BadSetting, match="lower-case letters"):
        checked_name(name)


def test_coordinators_tell_their_application() -> None:
    assert application_of(coordinator_name("shop")) == "shop"
    assert application_of("shop.ingress.0") is None
    assert application_of("other") is None


def test_limits_of_numbers_are_said() -> None:
    assert checked_workers(128) == 128
    assert checked_snapshot_interval(50) == 50
    assert checked_standbys(0) == 0
    with pytest.raises(BadSetting, match="1 to 128"):
        checked_workers(0)
    with pytest.raises(BadSetting, match="0 to 128"):
        checked_standbys(-1)
    with pytest.raises(BadSetting, match="50ms or more"):
        checked_snapshot_interval(10)


def test_a_summary_names_what_matters() -> None:
    line = summary_of(
        {
            "phase": "running",
            "generation": 3,
            "last_snapshot": {"id": 42, "age_ms": 300, "bytes": 10},
            "accepted": 12_345,
            "processed": 12_000,
            "lag": 345,
            "retrying": 2,
            "parked": 1,
        }
    )
    assert line == (
        "running, generation 3, snapshot 42, 300ms ago: 12,345 accepted, 12,000 processed, lag 345, "
        "2 addresses retrying, 1 address parked"
    )
    assert "no snapshot yet" in summary_of({"phase": "claiming", "generation": 0, "last_snapshot": None})
