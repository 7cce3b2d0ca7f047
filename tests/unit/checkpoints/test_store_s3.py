"""What only S3 can do: answers told apart, and no answers at all."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)

from statefun_checkpoints.errors import StoreError, StoreRefused, StoreUnavailable
from statefun_checkpoints.store import open_store
from statefun_checkpoints.store_s3 import S3Store

pytestmark = pytest.mark.s3

URL = "http://127.0.0.1"


def answer(status: int, code: str) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": "said so"}, "ResponseMetadata": {"HTTPStatusCode": status}},
        "PutObject",
    )


def failing(bucket: str, error: Exception, *, as_cause: bool = False) -> S3Store:
    """A store whose every request ends in ``error``, perhaps wrapped as s3fs does it."""
    store = S3Store(bucket, "failing")

    async def fail(*_: Any, **__: Any) -> None:
        if as_cause:
            raise OSError(22, "translated") from error
        raise error

    store._files._call_s3 = fail
    store._files.call_s3 = lambda *_, **__: run(fail)
    store._files.pipe_file = store._files.call_s3
    return store


def run(fail: Any) -> None:
    coroutine = fail()
    try:
        coroutine.send(None)
    except StopIteration:
        return


@pytest.mark.parametrize("as_cause", [False, True])
@pytest.mark.parametrize(("status", "code"), [(412, "PreconditionFailed"), (412, "412")])
def test_a_failed_condition_means_it_exists(s3_bucket: str, status: int, code: str, as_cause: bool) -> None:
    store = failing(s3_bucket, answer(status, code), as_cause=as_cause)
    assert store.create("log/1", b"") is False


@pytest.mark.parametrize("as_cause", [False, True])
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (answer(409, "ConditionalRequestConflict"), StoreUnavailable),
        (answer(500, "InternalError"), StoreUnavailable),
        (answer(503, "SlowDown"), StoreUnavailable),
        (answer(429, "TooManyRequests"), StoreUnavailable),
        (answer(400, "RequestTimeout"), StoreUnavailable),
        (answer(403, "AccessDenied"), StoreRefused),
        (answer(404, "NoSuchBucket"), StoreRefused),
    ],
)
def test_answers_are_definite_or_not(
    s3_bucket: str, error: Exception, kind: type[StoreError], as_cause: bool
) -> None:
    store = failing(s3_bucket, error, as_cause=as_cause)
    for operation in (
        lambda: store.create("log/1", b""),
        lambda: store.put("log/1", b""),
        lambda: store.get("log/1"),
        lambda: store.list("log/"),
        lambda: store.delete("log/1"),
    ):
        with pytest.raises(StoreError, match="HTTP") as caught:
            operation()
        assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectTimeoutError(endpoint_url=URL), StoreUnavailable),
        (ReadTimeoutError(endpoint_url=URL), StoreUnavailable),
        (EndpointConnectionError(endpoint_url=URL), StoreUnavailable),
        (TimeoutError("slow"), StoreUnavailable),
        (ConnectionResetError("gone"), StoreUnavailable),
        (NoCredentialsError(), StoreRefused),
    ],
)
def test_without_an_answer_only_what_was_never_sent_is_definite(
    s3_bucket: str, error: Exception, kind: type[StoreError]
) -> None:
    with pytest.raises(StoreError) as caught:
        failing(s3_bucket, error).create("log/1", b"")
    assert type(caught.value) is kind


def test_without_credentials_it_is_said_where_they_are_looked_for(s3_bucket: str) -> None:
    with pytest.raises(StoreRefused, match="AWS_ACCESS_KEY_ID"):
        failing(s3_bucket, NoCredentialsError()).create("log/1", b"")


def test_a_bug_of_ours_is_not_taken_for_the_weather(s3_bucket: str) -> None:
    with pytest.raises(ZeroDivisionError):
        failing(s3_bucket, ZeroDivisionError()).create("log/1", b"")


def test_a_bucket_that_does_not_exist_is_refused(s3_bucket: str) -> None:
    with pytest.raises(StoreRefused, match="NoSuchBucket"):
        open_store("s3://no-such-bucket", probe=True)


def test_listings_come_in_pages(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = S3Store(s3_bucket, "pages")
    names = [f"log/{n}" for n in range(5)]
    for name in names:
        store.put(name, b"")
    real = store._files.call_s3
    pages = []

    def two_at_a_time(method: str, **arguments: Any) -> Any:
        pages.append(arguments)
        return real(method, MaxKeys=2, **arguments)

    monkeypatch.setattr(store._files, "call_s3", two_at_a_time)
    assert store.list("log/", "log/0") == names[1:]
    assert len(pages) == 2


def test_prefixes_keep_applications_apart(s3_bucket: str) -> None:
    one, other = S3Store(s3_bucket, "apps/one"), S3Store(s3_bucket, "apps/one-more")
    one.put("a", b"1")
    other.put("a", b"2")
    assert one.list("") == ["a"]
    assert one.get("a") == b"1"
    assert other.uri == f"s3://{s3_bucket}/apps/one-more"
    assert S3Store(s3_bucket).uri == f"s3://{s3_bucket}"
    assert S3Store(s3_bucket).get("apps/one/a") == b"1"
