"""What can go wrong with a request to a remote function: whether the batch is to blame, or nobody."""

from __future__ import annotations


class RemoteError(Exception):
    """A request to a remote function has failed; the text says where and why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class ServiceUnavailable(RemoteError):
    """No service is there, or it says that it cannot just now: no message is to blame.

    Attributes:
        answered: it was a service that said so, with a status.
        retry_after_ms: how long it asks to be left alone; None if it does not say.
    """

    def __init__(self, reason: str, answered: bool = False, retry_after_ms: int | None = None) -> None:
        super().__init__(reason)
        self.args = (reason, answered, retry_after_ms)
        self.answered, self.retry_after_ms = answered, retry_after_ms


class InvocationPostponed(RemoteError):
    """The batch could not be tried and is to be tried again after ``delay_ms``."""

    def __init__(self, reason: str, delay_ms: int) -> None:
        super().__init__(reason)
        self.args = (reason, delay_ms)
        self.delay_ms = delay_ms


class BadAnswer(RemoteError):
    """The service has answered this batch with something that is no result.

    Attributes:
        is_final: StateFun's okhttp transport does not try again after such an answer.
    """

    def __init__(self, reason: str, is_final: bool = False) -> None:
        super().__init__(reason)
        self.args = (reason, is_final)
        self.is_final = is_final


class CallTimedOut(BadAnswer):
    """The service has not answered this batch in time."""
