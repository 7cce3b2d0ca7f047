"""Objects in S3, or a service that speaks it, through s3fs.

Create-if-absent is ``If-None-Match: *`` on PutObject. Its answers are told apart by HTTP status
and error code, not by the exception s3fs makes of them, which differs between services:

- 412 PreconditionFailed: the object exists. It may be *ours*: s3fs and botocore repeat a request
  whose answer was lost. The commit log therefore reads the slot again whenever a create did not
  succeed, and compares the nonce.
- 409 ConditionalRequestConflict, 5xx, throttling, timeouts, broken connections: no definite answer.
- anything else: a definite no (credentials, bucket, permissions).

Endpoint and credentials come from the environment as for any AWS tool: ``AWS_ENDPOINT_URL``,
``AWS_ACCESS_KEY_ID``, ``AWS_PROFILE``, instance roles.
"""

from __future__ import annotations

from typing import Any

import aiohttp
import s3fs
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)
from fsspec.asyn import sync
from fsspec.exceptions import FSTimeoutError

from statefun_checkpoints.errors import StoreError, StoreRefused, StoreUnavailable
from statefun_checkpoints.store import check_path, check_prefix

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 20  # of one answer; an upload that takes longer is making progress
_EXISTS = {"PreconditionFailed", "412"}
_ABSENT = {"NoSuchKey", "404"}
_NO_ANSWER_STATUS = {408, 409, 429}
_NO_ANSWER_CODES = {"RequestTimeout", "SlowDown", "ConditionalRequestConflict", "OperationAborted"}

# What s3fs lets through: its translations of an answer (OSError), and failures without one.
_FAILURES = (ClientError, BotoCoreError, OSError, TimeoutError, FSTimeoutError, aiohttp.ClientError)
_BEFORE_SENDING = (NoCredentialsError, PartialCredentialsError, ParamValidationError)


class S3Store:
    """Objects under ``s3://bucket/prefix``."""

    def __init__(self, bucket: str, prefix: str = "") -> None:
        """Args:
        bucket: must exist.
        prefix: without slashes at its ends; empty for the whole bucket.

        Raises:
            ValueError: there is no bucket name.
        """
        if not bucket:
            raise ValueError("an S3 URI needs a bucket: s3://bucket/prefix")
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self.uri = f"s3://{bucket}/{prefix}" if prefix else f"s3://{bucket}"
        self._files = s3fs.S3FileSystem(
            config_kwargs={"connect_timeout": CONNECT_TIMEOUT_S, "read_timeout": READ_TIMEOUT_S},
            use_listings_cache=False,  # another process may commit at any time
            skip_instance_cache=True,
        )

    def get(self, path: str) -> bytes | None:
        key = self._key(path, "get")
        try:
            data: bytes = sync(self._files.loop, self._read, key)
        except _FAILURES as error:
            if _code(error) in _ABSENT:
                return None
            raise _failure(path, "get", error) from error
        return data

    def put(self, path: str, data: bytes) -> None:
        key = self._key(path, "put")
        try:
            # Large objects go up in parts and become visible whole, when the last is there.
            self._files.pipe_file(f"{self._bucket}/{key}", data)
        except _FAILURES as error:
            raise _failure(path, "put", error) from error

    def create(self, path: str, data: bytes) -> bool:
        key = self._key(path, "create")
        try:
            self._call("put_object", Key=key, Body=data, IfNoneMatch="*")
        except _FAILURES as error:
            if _code(error) in _EXISTS:
                return False
            raise _failure(path, "create", error) from error
        return True

    def list(self, prefix: str, start_after: str = "") -> list[str]:
        check_prefix(prefix)
        names: list[str] = []
        more: dict[str, str] = {"StartAfter": self._prefix + start_after} if start_after else {}
        try:
            while True:
                page = self._call("list_objects_v2", Prefix=self._prefix + prefix, **more)
                names.extend(item["Key"].removeprefix(self._prefix) for item in page.get("Contents", ()))
                if not page.get("IsTruncated"):
                    return sorted(names)
                more = {"ContinuationToken": page["NextContinuationToken"]}
        except _FAILURES as error:
            raise _failure(prefix, "list", error) from error

    def delete(self, path: str) -> None:
        key = self._key(path, "delete")
        try:
            self._call("delete_object", Key=key)
        except _FAILURES as error:
            raise _failure(path, "delete", error) from error

    async def _read(self, key: str) -> bytes:
        # One request. s3fs's own `cat_file` asks for the size first, and for a listing if absent.
        answer = await self._files._call_s3("get_object", Bucket=self._bucket, Key=key)
        async with answer["Body"] as body:
            data: bytes = await body.read()
            return data

    def _key(self, path: str, operation: str) -> str:
        return self._prefix + check_path(path, operation)

    def _call(self, method: str, **arguments: Any) -> Any:
        return self._files.call_s3(method, Bucket=self._bucket, **arguments)


def _response(error: BaseException) -> dict[str, Any]:
    """Return the answer behind an exception; s3fs keeps it as the cause of its own."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, ClientError):
            response: dict[str, Any] = at.response
            return response
        at = at.__cause__
    return {}


def _code(error: BaseException) -> str:
    return str(_response(error).get("Error", {}).get("Code", ""))


def _failure(path: str, operation: str, error: Exception) -> StoreError:
    response = _response(error)
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = _code(error)
    cause = f"{code or type(error).__name__}: {error}" + (f" (HTTP {status})" if status else "")
    if response:
        definite = status < 500 and status not in _NO_ANSWER_STATUS and code not in _NO_ANSWER_CODES
    else:
        definite = isinstance(error, _BEFORE_SENDING)
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        cause += "; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    return (StoreRefused if definite else StoreUnavailable)(path, operation, cause)
