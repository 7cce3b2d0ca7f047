"""Reading a bulk request: lines of JSON in, encoded chunks of events out, all or nothing.

    {"target": "namespace/type", "id": "...", "type": "typename", "value": ...}

Lines are parsed as they arrive, so that a large body costs the event loop a little at a
time; nothing is appended before the last line has been understood.
"""

from __future__ import annotations

import msgspec

from statefun_ingress.config import BODY, ID, how_to_raise
from statefun_ingress.errors import RequestRefused
from statefun_ingress.record import CHUNK_BYTES_MAX, CHUNK_EVENTS_MAX, Events, encode_chunk
from statefun_ingress.registry import Registry
from statefun_ingress.values import Converter, check_json_depth, json_text


class Line(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One line; an unknown field is more likely a typing error than an extension."""

    target: str
    id: str
    value: msgspec.Raw
    type: str | None = None


_decoder = msgspec.json.Decoder(Line)


def _json_of_line(text: bytes) -> bytes:
    check_json_depth(text)  # its syntax was checked with the line
    return text


def check_id(id: str, bytes_max: int) -> None:
    """Raise 400 unless ``id`` can be the id of an address."""
    if not id:
        raise RequestRefused(400, "The id is empty", "an address needs an id of at least one character")
    if len(id) > bytes_max // 4 and len(id.encode()) > bytes_max:
        raise RequestRefused(
            400,
            "The id is too long",
            f"the id takes {len(id.encode())} bytes, at most {bytes_max} are taken; {how_to_raise(ID)}",
        )


class BulkParser:
    """Parses one bulk body.

    Args:
        registry: of the functions the lines may address.
        line_bytes_max: a longer line is refused (413).
        id_bytes_max: a longer id is refused (400).

    Attributes:
        parts: the events so far, as ``IngressLog.append_encoded`` takes them.
        event_count: how many they are.
    """

    def __init__(self, registry: Registry, line_bytes_max: int, id_bytes_max: int) -> None:
        self.parts: list[tuple[Events, bytes]] = []
        self.event_count = 0
        self._registry = registry
        self._line_bytes_max = line_bytes_max
        self._id_bytes_max = id_bytes_max
        self._rest: list[bytes] = []  # the beginning of a line whose end has not arrived
        self._rest_bytes = 0
        self._line_number = 1  # of the next line
        self._resolved: dict[tuple[str, str | None], tuple[str, str, Converter]] = {}
        self._events = Events.empty()
        self._events_bytes = 0

    def receive(self, data: bytes) -> None:
        """Take the next bytes of the body.

        Raises:
            RequestRefused: 400, 404, 413, 415 or 422, naming the line.
        """
        end = data.rfind(b"\n") + 1
        if end == 0:
            self._keep(data)
            return
        block = data[:end]
        if self._rest:
            block = b"".join((*self._rest, block))
            self._rest, self._rest_bytes = [], 0
        self._parse(block)
        if end < len(data):
            self._keep(data[end:])

    def finish(self) -> list[tuple[Events, bytes]]:
        """Take the last line, if it had no newline, and return all parts.

        Raises:
            RequestRefused: as ``receive``; also 400 if there was no event at all.
        """
        if self._rest:
            block = b"".join(self._rest)
            self._rest = []
            if block.strip():
                self._parse(block + b"\n")
        self._close_chunk()
        if not self.parts:
            raise RequestRefused(
                400, "The body holds no event", "send one JSON object per line, separated by newlines"
            )
        return self.parts

    def _keep(self, data: bytes) -> None:
        self._rest.append(data)
        self._rest_bytes += len(data)
        if self._rest_bytes > self._line_bytes_max:
            raise self._too_long(self._line_number)

    def _too_long(self, number: int) -> RequestRefused:
        return RequestRefused(
            413,
            "A line is too long",
            f"line {number} has more than {self._line_bytes_max} bytes, the limit for one event; {how_to_raise(BODY)}",
        )

    def _parse(self, block: bytes) -> None:
        """Parse whole lines."""
        line_count = block.count(b"\n")
        try:
            if not block.isascii():
                block.decode()  # values are kept as they come, so nothing else checks them
            lines = _decoder.decode_lines(block)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            lines = self._parse_singly(block)
        if len(lines) != line_count or b"\n\n" in block:
            # Blank lines, or several objects on one, which only the slow way tells apart.
            lines = self._parse_singly(block)
        try:
            self._add(lines)
        except _RefusedAt as at:
            number = self._line_number + _number_of(block, at.index)
            raise _at_line(number, at.refused) from at.refused
        self._line_number += line_count

    def _parse_singly(self, block: bytes) -> list[Line]:
        """Parse line by line, to name the one that is wrong."""
        lines: list[Line] = []
        for number, text in enumerate(block.split(b"\n")[:-1], self._line_number):
            if not text.strip():
                continue
            if len(text) > self._line_bytes_max:
                raise self._too_long(number)
            try:
                text.decode()
                lines.append(_decoder.decode(text))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise RequestRefused(
                    400,
                    "A line is not an event",
                    f"line {number}: {error}; expected "
                    '{"target": "namespace/type", "id": "...", "type": "typename", "value": ...}',
                ) from error
        return lines

    def _add(self, lines: list[Line]) -> None:
        """Add the events of ``lines``; the loop that a bulk request spends its time in."""
        resolved = self._resolved
        events = self._events
        size = self._events_bytes
        for index, line in enumerate(lines):
            id = line.id
            try:
                known = resolved.get((line.target, line.type)) or self._resolve(line)
                if not id or len(id) > 256:
                    check_id(id, self._id_bytes_max)
                value = known[2](bytes(line.value))
                if len(value) > self._line_bytes_max:
                    raise RequestRefused(
                        413,
                        "A value is too large",
                        f"the value has {len(value)} bytes, at most {self._line_bytes_max} are taken; "
                        f"{how_to_raise(BODY)}",
                    )
            except RequestRefused as refused:
                raise _RefusedAt(index, refused) from refused
            events.target_types.append(known[0])
            events.ids.append(id)
            events.value_types.append(known[1])
            events.values.append(value)
            size += len(value)
            if len(events.ids) == CHUNK_EVENTS_MAX or size >= CHUNK_BYTES_MAX:
                self._close_chunk()
                events, size = self._events, 0
        self._events_bytes = size

    def _resolve(self, line: Line) -> tuple[str, str, Converter]:
        target = self._registry.target(line.target)
        value_type, convert = target.from_json(line.type)
        if convert is json_text:
            convert = _json_of_line
        known = target.typename, value_type, convert
        if len(self._resolved) < 1_000:  # without `accepts` clients choose the types
            self._resolved[(line.target, line.type)] = known
        return known

    def _close_chunk(self) -> None:
        events = self._events
        if events.ids:
            events.caller_types = [""] * len(events.ids)
            events.caller_ids = [""] * len(events.ids)
            self.event_count += len(events.ids)
            self.parts.append((events, encode_chunk(events)))
            self._events = Events.empty()
            self._events_bytes = 0


class _RefusedAt(Exception):
    def __init__(self, index: int, refused: RequestRefused) -> None:
        super().__init__(index, refused)
        self.index, self.refused = index, refused


def _number_of(block: bytes, index: int) -> int:
    """Return which line of ``block``, from 0, is its ``index``-th that is not blank."""
    for number, text in enumerate(block.split(b"\n")):
        if text.strip():
            if index == 0:
                return number
            index -= 1
    return 0


def _at_line(number: int, refused: RequestRefused) -> RequestRefused:
    return RequestRefused(
        refused.status, refused.title, f"line {number}: {refused.detail}", refused.retry_after_s
    )
