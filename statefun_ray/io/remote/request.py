"""A request to a service, as whoever makes it sees it. No I/O.

One request is one attempt. Trying again is the core's: it knows the batch, its address and how
long it has failed. Only a kept connection that turns out to be closed is replaced by the client,
once: services close idle connections when they like, and that says nothing of them.
"""

from __future__ import annotations

from typing import Protocol

from statefun_ray.io.remote.target import Target


class Request(Protocol):
    """One request, and who is called back at its end: once, and not before `HttpClient.start` has returned."""

    target: Target
    """Where to."""
    body: bytes
    """A ``ToFunction``."""
    function_type: str
    """That it is for; requests for functions that allow it may travel together."""
    is_alone: bool
    """Whether it must not travel with others, who would have to wait for it: the one before it failed."""

    def answered(self, answer: bytes) -> None:
        """The service has answered with a success, and this body."""

    def failed(self, error: Exception) -> None:
        """There is no such answer.

        ``ServiceUnavailable``: nobody is there, or says that it cannot answer now. ``CallTimedOut``:
        no answer within the time of the transport. ``BadAnswer``: one that is no success. Anything
        else is a bug.
        """
