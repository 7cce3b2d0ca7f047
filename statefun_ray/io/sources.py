"""The sources that one worker reads by itself, as its module says."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from statefun_ray.core.splits import Splits
from statefun_ray.core.worker import Worker
from statefun_ray.module.model import Module

if TYPE_CHECKING:
    from statefun_ray.io.kafka.source import KafkaSource


class Sources:
    """All of them together. Belongs to the worker's loop."""

    def __init__(
        self,
        module: Module,
        splits: Splits,
        *,
        on_records: Callable[[], None],
        on_failed: Callable[[str], None],
    ) -> None:
        """Make them; nothing is read before `start`.

        Args:
            module: says which there are.
            splits: of the worker.
            on_records: told that `read` has something to do.
            on_failed: told why when one of them can not go on for good.

        Raises:
            UserValueError: a property that a client does not take.
        """
        self._sources: list[KafkaSource] = []
        if module.kafka_ingresses:
            # An extra, and not needed by an application without Kafka.
            from statefun_ray.io.kafka.source import KafkaSource

            self._sources = [
                KafkaSource(
                    ingress,
                    splits,
                    on_chunk=on_records,
                    on_failed=on_failed,
                    is_strict=module.failure_policy.strict,
                )
                for ingress in module.kafka_ingresses
            ]

    @property
    def trouble(self) -> str:
        """What cannot be read right now, for people. Any thread may ask."""
        return "; ".join(source.trouble for source in self._sources if source.trouble)

    def start(self) -> None:
        """Begin to read."""
        for source in self._sources:
            source.start()

    def read(self, core: Worker) -> bool:
        """Give the core one chunk of each source, as far as it takes any; return whether it got one."""
        has_read = False
        for source in self._sources:
            chunk = source.take() if core.takes_input else None
            if chunk is not None and chunk.is_reset:
                core.splits.reset(chunk.split, chunk.next_position)
                has_read = True
            elif chunk is not None:
                core.split_records(chunk.split, chunk.next_position, chunk.messages, chunk.rejected)
                has_read = True
        return has_read

    def committed(self, positions: dict[str, int]) -> None:
        """A snapshot with these positions exists."""
        for source in self._sources:
            source.committed(positions)

    def leave(self, timeout_s: float) -> None:
        """Stop reading, and let consumer groups show what was committed last. May block."""
        deadline_s = time.monotonic() + timeout_s
        for source in self._sources:
            source.close()
        for source in self._sources:
            source.leave(max(0.0, deadline_s - time.monotonic()))

    def close(self) -> None:
        """Stop reading."""
        for source in self._sources:
            source.close()
