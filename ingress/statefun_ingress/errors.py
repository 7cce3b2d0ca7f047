"""Everything the ingress may raise.

    IngressError
    ├── LogError                    the log on disk
    │   ├── LogFailed               a write or fsync failed; this log takes nothing more
    │   ├── LogLocked               another live process has the log open
    │   ├── CorruptLog              a durable record no longer reads as it was written
    │   └── LogTrimmed              asked for records that are no longer kept
    ├── ProducerError               a Producer-Id / Producer-Sequence pair that cannot be taken
    │   ├── SequenceTooFarAhead     an earlier sequence is still missing
    │   ├── SequenceReused          the sequence was accepted for other events
    │   └── TooManyProducers        the table of producers is full
    ├── TooManyPendingReplies       as many requests wait for a reply as may
    ├── FrameError                  a peer on the feed connection broke the protocol
    ├── RequestRefused              an HTTP request that cannot be accepted (values.py, asgi.py)
    └── CannotListen                the address is taken, or not ours

Each carries its data as positional arguments, so it survives pickling between processes.
"""

from __future__ import annotations


class IngressError(Exception):
    """The root of all errors of this package."""


class LogError(IngressError):
    """Something about the log on disk."""


class LogFailed(LogError):
    """A write or fsync failed, so what is on disk is unknown: the log takes nothing more.

    The write is never retried: after a failed fsync the kernel may have marked the lost
    pages clean, and a second fsync would succeed without writing them.
    """

    def __init__(self, log_id: str, cause: str) -> None:
        super().__init__(log_id, cause)
        self.log_id, self.cause = log_id, cause

    def __str__(self) -> str:
        return (
            f"ingress log {self.log_id} stopped accepting after a failed write ({self.cause}); "
            "free or repair its disk, then restart this ingress: it re-opens the log at the last record it acknowledged"
        )


class LogLocked(LogError):
    """Another live process has the log open."""

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        self.directory = directory

    def __str__(self) -> str:
        return (
            f"the ingress log in {self.directory} is held by another live process; "
            "stop that process, or use another log directory"
        )


class CorruptLog(LogError):
    """A durable part of the log is damaged or missing."""

    def __init__(self, name: str, offset: int, found: str) -> None:
        super().__init__(name, offset, found)
        self.name, self.offset, self.found = name, offset, found

    def __str__(self) -> str:
        return (
            f"ingress log file {self.name} is damaged at byte {self.offset}: {self.found}; "
            "restore the file from a copy, acknowledged events are in it"
        )


class LogTrimmed(LogError):
    """Records were asked for that have been removed after every snapshot had passed them."""

    def __init__(self, log_id: str, wanted: int, first_seq: int) -> None:
        super().__init__(log_id, wanted, first_seq)
        self.log_id, self.wanted, self.first_seq = log_id, wanted, first_seq

    def __str__(self) -> str:
        return (
            f"ingress log {self.log_id} starts at sequence {self.first_seq}, but {self.wanted} was asked for; "
            "the snapshot that needs it is older than the retained ones"
        )


class ProducerError(IngressError):
    """A producer's sequence cannot be taken."""


class SequenceTooFarAhead(ProducerError):
    """A producer sent a sequence too far beyond the lowest one it has not had accepted."""

    def __init__(self, producer_id: str, sequence: int, expected: int, window: int) -> None:
        super().__init__(producer_id, sequence, expected, window)
        self.producer_id, self.sequence = producer_id, sequence
        self.expected, self.window = expected, window

    def __str__(self) -> str:
        return (
            f"producer {self.producer_id!r} sent sequence {self.sequence}, but its sequence {self.expected} has not been "
            f"accepted yet and at most {self.window} may be open; send {self.expected} first: numbers may come in any "
            "order, but none may be left out (a refused request does not use up its sequence)"
        )


class SequenceReused(ProducerError):
    """A producer used a sequence again, for a request with other events."""

    def __init__(self, producer_id: str, sequence: int, first_seq: int) -> None:
        super().__init__(producer_id, sequence, first_seq)
        self.producer_id, self.sequence, self.first_seq = producer_id, sequence, first_seq

    def __str__(self) -> str:
        return (
            f"producer {self.producer_id!r} has used sequence {self.sequence} for a request with other events, accepted at "
            f"sequence {self.first_seq} of the log; this request was not accepted: send it under a number of its own, and "
            "give two clients two Producer-Ids"
        )


class TooManyProducers(ProducerError):
    """The table of producers is full."""

    def __init__(self, producer_id: str, limit: int) -> None:
        super().__init__(producer_id, limit)
        self.producer_id, self.limit = producer_id, limit

    def __str__(self) -> str:
        return (
            f"producer {self.producer_id!r} is new and this ingress already remembers {self.limit} producers; "
            "re-use a Producer-Id per client instead of one per request, or raise the limit"
        )


class TooManyPendingReplies(IngressError):
    """As many requests wait for a reply as may."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.limit} requests already wait for a reply; retry later, or send without 'Prefer: wait'"


class FrameError(IngressError):
    """A peer on the feed connection sent something that is not a frame of the protocol."""

    def __init__(self, found: str) -> None:
        super().__init__(found)
        self.found = found

    def __str__(self) -> str:
        return f"not a frame of the feed protocol: {self.found}; both sides must run the same version"


class RequestRefused(IngressError):
    """An HTTP request that cannot be accepted, with everything its answer says.

    Args:
        status: HTTP status of the answer.
        title: what kind of refusal, the same for every request refused this way.
        detail: what was found, what was expected, what to do.
        retry_after_s: 0, or the seconds after which another attempt makes sense.
    """

    def __init__(self, status: int, title: str, detail: str, retry_after_s: int = 0) -> None:
        super().__init__(status, title, detail, retry_after_s)
        self.status, self.title, self.detail = status, title, detail
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.status} {self.title}: {self.detail}"


class CannotListen(IngressError):
    """The ingress cannot listen where it should."""

    def __init__(self, host: str, port: int, option: str, cause: str) -> None:
        super().__init__(host, port, option, cause)
        self.host, self.port, self.option, self.cause = host, port, option, cause

    def __str__(self) -> str:
        return f"cannot listen on {self.host} port {self.port}: {self.cause}; choose another address with {self.option}"
