"""Services built with the official SDKs, unmodified, through the whole runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from statefun_ray.io.client import RequestFailed
from statefun_ray.local import LocalApplication
from statefun_ray.module.model import Endpoint, FileEgress, Module
from statefun_sdk.protocol import KafkaProducerRecord
from tests.parts.processes import ServiceProcess


def application(service: ServiceProcess, tmp_path: Path, **settings: Any) -> LocalApplication:
    module = Module(
        endpoints=(Endpoint("lab/*", service.url),),
        file_egresses=(FileEgress("lab/out", (tmp_path / "out").as_uri()),),
    )
    return LocalApplication(
        module=module,
        storage=tmp_path / "storage",
        log_dir=tmp_path / "log",
        snapshot_interval_s=0.2,
        **settings,
    )


def count(app: LocalApplication, id: str, function: str = "lab/counter") -> int:
    try:
        value = app.state(function, id).get("count")
    except RequestFailed as error:
        if error.status != 503:  # its worker is recovering
            raise
        return -1
    return value if isinstance(value, int) else 0


def records(app: LocalApplication, tmp_path: Path) -> list[tuple[str, str, str]]:
    from statefun_ray.io.egress_file import read_egress

    rows = read_egress((tmp_path / "out").as_uri(), "lab/out")
    decoded = [KafkaProducerRecord.FromString(row.value or b"") for row in rows]
    return sorted((record.topic, record.key, record.value_bytes[-20:].decode()) for record in decoded)


def test_state_messages_delays_and_egress(service: ServiceProcess, tmp_path: Path) -> None:
    with application(service, tmp_path) as app:
        assert app.ask("lab/counter", "c", "x") == 1
        assert app.ask("lab/counter", "c", "x") == 2
        app.send("lab/greeter", "ada", "Ada")
        app.send("lab/greeter", "bob", "cancel")
        app.wait_until(lambda: count(app, "ada") == 1 and count(app, "bob") == 1)
        app.wait_until(lambda: count(app, "ada-later") == 1)
        state = app.state("lab/greeter", "ada")
        assert (state["visits"], state["last_name"]) == (1, "Ada")
        app.wait_until(lambda: len(records(app, tmp_path)) == 2)
        found = records(app, tmp_path)
        assert [(topic, key) for topic, key, _ in found] == [("greetings", "ada"), ("greetings", "bob")]
        assert found[0][2].endswith("Ada 1")
        assert count(app, "bob-later") == 0


def test_a_failing_message_holds_up_its_own_address_only(service: ServiceProcess, tmp_path: Path) -> None:
    with application(service, tmp_path) as app:
        for text in ("ok", "fail", "ok"):
            app.send("lab/failing", "sick", text)
        for number in range(10):
            app.send("lab/failing", f"well{number}", "ok")
        app.wait_until(lambda: all(count(app, f"well{n}", "lab/failing") == 1 for n in range(10)))
        app.wait_until(lambda: count(app, "sick", "lab/failing") == 1)


def test_everything_is_applied_once_while_workers_die_and_the_service_restarts(
    service: ServiceProcess, tmp_path: Path
) -> None:
    with application(service, tmp_path) as app:
        for turn in range(4):
            for number in range(100):
                app.send("lab/counter", f"id{number % 20}", "x")
            if turn % 2:
                service.restart()
            else:
                app.kill_worker(turn // 2)
        app.wait_until(lambda: all(count(app, f"id{n}") == 20 for n in range(20)), 60)
        app.restart(workers=3)
        assert [count(app, f"id{n}") for n in range(20)] == [20] * 20
