"""The key group of an id: the unit by which events are spread over workers."""

from __future__ import annotations

import xxhash

KEY_GROUP_COUNT_DEFAULT = 1024
"""Key groups of an application that does not say otherwise; fixed for its whole life."""


def key_group_of(id: str, key_group_count: int) -> int:
    """Return the key group of ``id``, in ``[0, key_group_count)``.

    The same function on every side of the system, so that an event is fed to the
    worker that holds the state of its address.
    """
    return int(xxhash.xxh3_64_intdigest(id.encode()) % key_group_count)
