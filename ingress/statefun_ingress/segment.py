"""One segment of the log, and the two small formats beside the records.

A segment file begins with ``b"SFSEGMT1"``, the length and xxh32 checksum (u32 each, little
endian) of a msgpack map, and that map:

    format     1
    log_id     the log it belongs to
    first_seq  its first sequence, also its name
    previous   [first_seq, end_seq, size_bytes] of the segment before it, null for the first
    producers  [[producer, floor, [sequences above]], ...] as of first_seq

``log.json`` holds the format, the log's id, how often it was opened, and a sequence up to
which it is known to have been durable.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import xxhash

from statefun_ingress.errors import CorruptLog
from statefun_ingress.log_files import LogFiles
from statefun_ingress.record import BadRecord, TornRecord

META_NAME: Final = "log.json"
SEGMENT_SUFFIX: Final = ".segment"
FORMAT: Final = 1
INDEX_BYTES: Final = 64 << 10
"""A reader scans at most about this far to find a sequence."""

_SEGMENT_MAGIC: Final = b"SFSEGMT1"


class Segment:
    __slots__ = ("end_seq", "first_seq", "index", "name", "size_bytes")

    def __init__(
        self, name: str, first_seq: int, end_seq: int, size_bytes: int, index: list[tuple[int, int]]
    ) -> None:
        self.name = name
        self.first_seq = first_seq
        self.end_seq = end_seq  # durable
        self.size_bytes = size_bytes  # durable
        self.index = index  # (first_seq of a record, its offset), at least one per INDEX_BYTES


def segment_name(first_seq: int) -> str:
    """Return the file name of the segment that starts at ``first_seq``."""
    return f"{first_seq:020d}{SEGMENT_SUFFIX}"


def first_seq_of(name: str) -> int:
    digits = name.removesuffix(SEGMENT_SUFFIX)
    if not digits.isdecimal():
        raise CorruptLog(name, 0, "its name is not a sequence number")
    return int(digits)


def encode_segment_header(
    log_id: str, first_seq: int, previous: list[int] | None, producers: list[tuple[str, int, list[int]]]
) -> bytes:
    body = msgspec.msgpack.encode(
        {
            "format": FORMAT,
            "log_id": log_id,
            "first_seq": first_seq,
            "previous": previous,
            "producers": producers,
        }
    )
    checksum = xxhash.xxh32_intdigest(body, seed=len(body))
    return b"".join((_SEGMENT_MAGIC, len(body).to_bytes(4, "little"), checksum.to_bytes(4, "little"), body))


def decode_segment_header(data: bytes) -> tuple[dict[str, Any], int]:
    if len(data) < 16:
        raise TornRecord(16)
    if data[:8] != _SEGMENT_MAGIC:
        raise BadRecord(f"it does not begin as a segment (found {data[:8].hex()})")
    end = 16 + int.from_bytes(data[8:12], "little")
    if len(data) < end:
        raise TornRecord(end)
    body = data[16:end]
    if xxhash.xxh32_intdigest(body, seed=len(body)) != int.from_bytes(data[12:16], "little"):
        raise BadRecord("the checksum of its header is wrong")
    header: dict[str, Any] = msgspec.msgpack.decode(body)
    return header, end


def read_meta(files: LogFiles) -> tuple[str, int, int]:
    data = files.read(META_NAME, 0, files.size(META_NAME))
    try:
        meta = msgspec.json.decode(data)
        log_id, boot, end_seq, found = meta["log_id"], meta["boot"], meta["end_seq"], meta["format"]
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise CorruptLog(META_NAME, 0, f"it does not read as the log's description ({error!r})") from error
    if found != FORMAT:
        raise CorruptLog(META_NAME, 0, f"it has format {found}, this version reads {FORMAT}")
    return str(log_id), int(boot), int(end_seq)


def write_meta(files: LogFiles, log_id: str, boot: int, end_seq: int) -> None:
    meta = {"format": FORMAT, "log_id": log_id, "boot": boot, "end_seq": end_seq}
    files.replace(META_NAME, msgspec.json.encode(meta))
