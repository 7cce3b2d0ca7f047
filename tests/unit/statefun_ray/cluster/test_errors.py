from __future__ import annotations

import pickle

import pytest

from statefun_ray.cluster import errors
from statefun_sdk.errors import StateFunError

EXAMPLES: list[StateFunError] = [
    errors.BadTarget("a:b", "there is none", "look"),
    errors.BadSetting("--workers", "0", "1 or more"),
    errors.BadChoice("drop", 2),
    errors.BadModule(("module.yaml:3: kind: found nothing",)),
    errors.ClusterUnreachable("host:1", "refused"),
    errors.ClusterOpen("host:1", 3),
    errors.NotEnoughCpus(2.35, "2 workers", 1.0, 2.0, "say --workers 1"),
    errors.PortTaken("127.0.0.1", 80, "in use"),
    errors.AddressUnusable("10.0.0.1", 80, "not here"),
    errors.StorageUnusable("file:///x", "read-only"),
    errors.LogFolderUnusable("/x", "read-only"),
    errors.LogInUse("my-app", "/var/lib/my-app"),
    errors.NameTaken("shop", "here"),
    errors.UnknownApplication("shop", ("other",), "there"),
    errors.StartFailed("shop", "no"),
    errors.StartStopped("shop"),
    errors.ApplicationFailed("shop", "no"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_errors_survive_the_way_between_processes(error: StateFunError) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(again) is type(error)
    assert str(again) == str(error)


def test_every_error_has_an_example_here() -> None:
    defined = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert defined - {errors.LaunchError} == {type(error) for error in EXAMPLES}


def test_too_few_cpus_says_have_and_need() -> None:
    text = str(errors.NotEnoughCpus(2.35, "2 workers x 1", 1.0, 2.0, "say --workers 1"))
    assert "need 2.35" in text
    assert "have 1 free of 2" in text
    assert "--workers 1" in text
