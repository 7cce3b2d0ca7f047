"""Rows to parts: encode, hash, decide inline or file, and put the file.

A part is complete in the store before its descriptor is handed on, so an acknowledgement can
only name what is there. Its name is unique to (generation, snapshot, worker, kind): putting the
same bytes again after a missing answer is harmless.
"""

from __future__ import annotations

import base64

import msgspec
import xxhash

from statefun_checkpoints import arrow_format, layout
from statefun_checkpoints.errors import StoreUnavailable
from statefun_checkpoints.model import INLINE_BYTES_MAX, KeyGroups, Level, PartDescriptor, PartKind, Rows
from statefun_checkpoints.store_requests import Put, StoreSteps

PUTS_MAX = 3  # tries of one part; after that the snapshot is given up, not the application


class EncodedPart(msgspec.Struct, frozen=True):
    """A part with its description.

    Attributes:
        descriptor: what goes into the acknowledgement.
        file: bytes to put at ``descriptor.path`` first; None if the part is inline.
    """

    descriptor: PartDescriptor
    file: bytes | None


def encode(
    rows: Rows,
    *,
    kind: PartKind,
    level: Level | None = None,
    generation: int,
    snapshot: int,
    worker: int,
    key_groups: KeyGroups,
    inline_bytes_max: int = INLINE_BYTES_MAX,
) -> EncodedPart | None:
    """Encode and describe ``rows`` in one go; None if there are none, for empty parts are never written.

    Args:
        rows: all of the part.
        kind, level, generation, snapshot, worker, key_groups: as in `PartDescriptor`.
        inline_bytes_max: longest encoded part that stays inline.
    """
    if not len(rows):
        return None
    return describe(
        arrow_format.encode_part(rows, kind),
        kind=kind,
        level=level,
        generation=generation,
        snapshot=snapshot,
        worker=worker,
        key_groups=key_groups,
        rows=len(rows),
        inline_bytes_max=inline_bytes_max,
    )


def describe(
    data: bytes,
    *,
    kind: PartKind,
    level: Level | None = None,
    generation: int,
    snapshot: int,
    worker: int,
    key_groups: KeyGroups,
    rows: int,
    inline_bytes_max: int = INLINE_BYTES_MAX,
) -> EncodedPart:
    """Describe a part that is encoded already, for instance by `arrow_format.encode_slices`."""
    inline = len(data) <= inline_bytes_max
    descriptor = PartDescriptor(
        kind=kind,
        level=level,
        worker=worker,
        snapshot=snapshot,
        key_groups=key_groups,
        rows=rows,
        bytes=len(data),
        xxh3_128=xxhash.xxh3_128_hexdigest(data),
        inline=base64.b64encode(data).decode() if inline else None,
        path=None if inline else layout.part_path(generation, snapshot, worker, kind),
    )
    return EncodedPart(descriptor, None if inline else data)


def write(part: EncodedPart) -> StoreSteps[PartDescriptor]:
    """Put the part's file, if it has one, and return the descriptor.

    Raises:
        StoreUnavailable: no answer, several times.
        StoreRefused: the store said no.
    """
    if part.file is not None:
        yield from _put(part)
    return part.descriptor


def _put(part: EncodedPart) -> StoreSteps[None]:
    assert part.file is not None
    assert part.descriptor.path is not None
    for attempt in range(1, PUTS_MAX + 1):
        try:
            yield Put(part.descriptor.path, part.file)
            return
        except StoreUnavailable:
            if attempt == PUTS_MAX:
                raise
