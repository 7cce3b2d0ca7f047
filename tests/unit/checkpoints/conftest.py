"""The stores that every store test runs on."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from statefun_checkpoints.store import open_store
from statefun_checkpoints.store_requests import ObjectStore

_numbers = itertools.count()


@pytest.fixture(scope="session")
def s3_bucket() -> Iterator[str]:
    """A bucket on an S3 server of our own, on loopback."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    client = boto3.client("s3")
    client.create_bucket(Bucket="snapshots")
    client.close()
    yield "snapshots"
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
    server.stop()


@pytest.fixture(params=["memory", "local", pytest.param("s3", marks=pytest.mark.s3)])
def store_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Somewhere empty."""
    if request.param == "local":
        return (tmp_path / "store").as_uri()
    if request.param == "s3":
        return f"s3://{request.getfixturevalue('s3_bucket')}/test-{next(_numbers)}/deeper"
    return f"memory://{tmp_path}"


@pytest.fixture
def store(store_uri: str) -> ObjectStore:
    """An empty store of each kind in turn."""
    return open_store(store_uri)
