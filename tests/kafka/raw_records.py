"""Writes records that no client library would: bytes where Kafka expects text."""

from __future__ import annotations

import socket
import struct

RawRecord = tuple[bytes, bytes, list[tuple[bytes, bytes]]]
"""Key, value and headers."""

_API_PRODUCE, _VERSION = 0, 3
_TIMEOUT_MS = 10_000


def produce_raw(address: str, topic: str, records: list[RawRecord]) -> None:
    """Write records to partition 0 of a topic and wait until they are there."""
    batch = _batch(records)
    name = topic.encode()
    request = b"".join(
        (
            struct.pack(">hhih", _API_PRODUCE, _VERSION, 1, -1),
            struct.pack(">hhi", -1, -1, _TIMEOUT_MS),  # no transaction, all replicas
            struct.pack(">ih", 1, len(name)) + name,
            struct.pack(">iii", 1, 0, len(batch)) + batch,
        )
    )
    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = connection.makefile("rb")
        (size,) = struct.unpack(">i", answer.read(4))
        (error,) = struct.unpack_from(">h", answer.read(size), 4 + 4 + 2 + len(name) + 4 + 4)
    assert error == 0, f"the broker answered with error {error}"


def _batch(records: list[RawRecord]) -> bytes:
    written = b"".join(_record(offset, *record) for offset, record in enumerate(records))
    count = len(records)
    checked = struct.pack(">hiqqqhii", 0, count - 1, 0, 0, -1, -1, -1, count) + written
    inner = struct.pack(">ibI", -1, 2, _crc32c(checked)) + checked
    return struct.pack(">qi", 0, len(inner)) + inner


def _record(offset: int, key: bytes, value: bytes, headers: list[tuple[bytes, bytes]]) -> bytes:
    parts = [b"\0", _number(0), _number(offset), _sized(key), _sized(value), _number(len(headers))]
    parts += [_sized(name) + _sized(content) for name, content in headers]
    return _sized(b"".join(parts))


def _sized(data: bytes) -> bytes:
    return _number(len(data)) + data


def _number(number: int) -> bytes:
    """Return a varint in zigzag, of a number of 0 or more."""
    number <<= 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _crc32c(data: bytes) -> int:
    """Castagnoli's CRC-32, which record batches are checked with."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
