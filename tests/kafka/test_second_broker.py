"""At least once against another implementation of a broker."""

from __future__ import annotations

from pathlib import Path

from statefun_ray.local import LocalApplication
from tests.kafka.broker import tansu
from tests.kafka.test_end_to_end import Topics, functions


def test_nothing_is_lost_and_order_is_kept(tmp_path: Path) -> None:
    with tansu(tmp_path) as broker:
        topics = Topics(broker, "at-least-once")
        with LocalApplication(
            functions, module=topics.module, name=topics.name, snapshot_interval_s=0.1
        ) as app:
            for turn in range(3):
                topics.produce(200)
                app.kill_worker(turn % 2)
            seen: dict[str, list[str]] = {}
            expected = topics.expected()

            def is_complete() -> bool:
                records = broker.all_of(topics.output, 0, committed=False)
                for record in records:
                    key, value = record.key(), record.value()
                    assert isinstance(key, bytes)
                    assert value is not None
                    # Again is allowed, out of order is not: the first time counts.
                    found = seen.setdefault(key.decode(), [])
                    if value.decode() not in found:
                        found.append(value.decode())
                return seen == expected

            app.wait_until(is_complete, 60)
