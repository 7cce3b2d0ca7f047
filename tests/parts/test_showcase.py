"""The showcase as its README says, each of its parts really invoked: on each SDK, and in the workers."""

from __future__ import annotations

import itertools
import shutil
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from examples.showcase import names
from examples.showcase.functions import functions
from examples.showcase.user_profile_pb2 import UserProfile
from statefun_ray.io.egress_file import read_egress
from statefun_ray.local import LocalApplication
from statefun_ray.module.load import load
from statefun_ray.module.model import Module
from statefun_sdk import StringType, simple_type
from statefun_sdk.protocol import KinesisEgressRecord
from tests.kafka.broker import Broker, noida
from tests.parts.environments import APACHE, FORK, JS, node_with, python_with
from tests.parts.processes import ServiceProcess

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "showcase"

SDKS = ("ours", "apache", "fork", "js")

UNKNOWN = simple_type("somebody/Else", str.encode, bytes.decode)


class Stage:
    """One running showcase: a service or none, a broker, and the application between them."""

    def __init__(
        self, language: str, app: LocalApplication, broker: Broker, kinesis: Path, console: Path | None
    ) -> None:
        self.language = language
        self.app = app
        self.broker = broker
        self.kinesis = kinesis
        self.console = console

    def heard(self, topic: str, count: int) -> list[str]:
        """Take records from a topic of the playground."""
        deadline_s = time.monotonic() + 20
        taken: list[str] = []
        while len(taken) < count:
            with urllib.request.urlopen(f"{self.app.playground_egress_url}/{topic}", timeout=10) as answer:
                if answer.headers["status"] == "200":
                    taken.append(answer.read().decode())
                    continue
            assert time.monotonic() < deadline_s, f"{topic} has {taken} and nothing more"
            time.sleep(0.01)
        return taken

    def is_empty(self, topic: str) -> bool:
        with urllib.request.urlopen(f"{self.app.playground_egress_url}/{topic}", timeout=10) as answer:
            return bool(answer.headers["status"] == "404")


def service_of(sdk: str, tmp_path: Path) -> ServiceProcess:
    """Return the showcase's service on one SDK; for the official ones nothing but the imports is changed."""
    log = tmp_path / "console"
    if sdk == "js":
        node, folder = node_with(JS)
        packages = {"NODE_PATH": str(folder / "node_modules")}
        return ServiceProcess([str(node), str(EXAMPLE / "functions.js")], log, env=packages)
    serve = ["-m", "examples.showcase.service"]
    if sdk == "ours":
        return ServiceProcess([sys.executable, *serve], log, cwd=EXAMPLE.parents[1])
    moved = tmp_path / "official" / "examples" / "showcase"
    shutil.copytree(EXAMPLE, moved, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
    for name in ("functions.py", "service.py"):
        text = (moved / name).read_text()
        assert text.count("from statefun_sdk import") == 1
        (moved / name).write_text(text.replace("from statefun_sdk import", "from statefun import"))
    python = python_with(*(APACHE if sdk == "apache" else FORK))
    return ServiceProcess([str(python), *serve], log, cwd=tmp_path / "official", env={"PYTHONPATH": ""})


def module_at(tmp_path: Path, service_port: int, broker: Broker) -> Module:
    """Return what the example's module.yaml says, at addresses that are free."""
    text = (EXAMPLE / "module.yaml").read_text()
    for said, count, here in (
        ("127.0.0.1:8000", 1, f"127.0.0.1:{service_port}"),
        ("127.0.0.1:9092", 2, broker.address),
        ("file:///tmp/showcase/kinesis", 1, (tmp_path / "kinesis").as_uri()),
        ("port: 8091", 1, "port: 0"),
    ):
        assert text.count(said) == count, said
        text = text.replace(said, here)
    path = tmp_path / "module.yaml"
    path.write_text(text)
    reading = load([str(path)])
    assert reading.problems == ()
    assert reading.module is not None
    return reading.module


@contextmanager
def staged(kind: str, tmp_path: Path) -> Iterator[Stage]:
    service = None if kind == "embedded" else service_of(kind, tmp_path)
    with noida(tmp_path) as broker:
        names.create_topics(broker.address)
        module = module_at(tmp_path, service.port if service else 1, broker)
        try:
            if service is not None:
                service.start()
            with LocalApplication(functions if service is None else None, module=module) as app:
                console = None if service is None else tmp_path / "console"
                language = "JavaScript" if kind == "js" else "Python"
                yield Stage(language, app, broker, tmp_path / "kinesis", console)
        finally:
            if service is not None:
                service.kill()


@pytest.fixture(params=[*SDKS, "embedded"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    with staged(request.param, tmp_path) as made:
        yield made


def test_every_part_does_what_it_shows(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    # What takes its time is begun first: a delayed message, and a value that expires.
    stage.app.send("showcase/messaging", "ann", "go")
    check_storage(stage)
    check_serving(stage, capsys)
    check_egress(stage)
    check_async(stage)
    check_types_and_messaging(stage)
    check_expiration(stage)


def check_types_and_messaging(stage: Stage) -> None:
    wide = ["a long of 64 bits: 10000000000", "a double: 0.1"]
    values = [
        "a bool: True",
        "an int of 32 bits: 123",
        wide[0],
        "a float: 2.5",
        wide[1],
        "a string: Hello!",
        "JSON: somebody called Joe",
        "a type of our own: 21.5 degrees",
        "protobuf: ann likes mint chocolate and The Office",
    ]
    unknown = "somebody/Else, which nobody here knows: b'hi'"
    if stage.language == "JavaScript":
        values = ["a bool: true", *(text for text in values[1:] if text not in wide)]
        unknown = "somebody/Else, which nobody here knows: hi"
    assert stage.heard("types", len(values)) == values

    stage.app.send("showcase/types", "ann", "hi", type=UNKNOWN)
    assert stage.heard("types", 1) == [unknown]

    notes = [f"a note of ann to itself: {when}" for when in ("now", "a second later")]
    assert stage.heard("messaging", 2) == notes  # "never" was due between them
    assert stage.is_empty("messaging")
    assert stage.is_empty("types")


def check_serving(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    names.send_and_listen(stage.broker.address, count=5, pause_s=0)

    hello = "Hello" if stage.language == "JavaScript" else "hello"
    expected = [
        f"{hello} {name}! I've seen you {seen} times!"
        for name, seen in (("Bob", 1), ("Joe", 1), ("Bob", 2), ("Joe", 2), ("Bob", 3))
    ]
    printed = capsys.readouterr().out.splitlines()
    if stage.console is None:  # the functions print here as well, each greeting before its record leaves
        assert sorted(printed) == sorted(expected * 2)
        assert [text for number, text in enumerate(printed) if text in printed[:number]] == expected
    else:
        assert printed == expected
        on_console = [line for line in stage.console.read_text().splitlines() if line.startswith(hello)]
        assert on_console == expected
    assert [record.key() for record in stage.broker.consume("greetings", 5)] == [
        *(b"Bob", b"Joe", b"Bob", b"Joe", b"Bob")
    ]


def check_egress(stage: Stage) -> None:
    stage.app.send("showcase/egress", "eve", "good day")

    assert stage.heard("egress", 1) == ["eve says good day"]
    record = stage.broker.consume("greetings", 6)[5]
    assert (record.key(), record.value()) == (b"eve", b"good day")
    stage.app.wait_until(lambda: len(read_egress(stage.kinesis.as_uri(), "showcase/kinesis")) == 1)
    [row] = read_egress(stage.kinesis.as_uri(), "showcase/kinesis")
    kinesis = KinesisEgressRecord.FromString(row.value or b"")
    assert (kinesis.stream, kinesis.partition_key, kinesis.value_bytes) == ("greetings", "eve", b"good day")


def check_async(stage: Stage) -> None:
    answer = stage.app.ask("showcase/async", "zoe", "who am I?")

    expected = UserProfile(name="zoe", favorite_ice_cream="mint chocolate", favorite_show="The Office")
    assert UserProfile.FromString(answer) == expected
    assert set(stage.app.state("showcase/async", "zoe")) == {"profile"}
    assert stage.app.ask("showcase/async", "zoe", "again") == answer


def check_storage(stage: Stage) -> None:
    assert shop(stage, "tea", "milk", "check out", "rum", "check out") == [
        "call 1, basket: tea; bargain: tea",
        "call 2, basket: tea, milk; bargain: tea",
        "call 3, basket: nothing; bargain: tea",
        "call 4, basket: rum; bargain: tea",
        "call 5, basket: nothing; bargain: tea",
    ]


def check_expiration(stage: Stage) -> None:
    deadline_s = time.monotonic() + 20
    for calls in itertools.count(6):
        [said] = shop(stage, "check out")
        if said != f"call {calls}, basket: nothing; bargain: tea":
            break
        assert time.monotonic() < deadline_s, "the bargain does not expire"
    assert said == f"call {calls}, basket: nothing; bargain: check out"


def shop(stage: Stage, *texts: str) -> list[str]:
    target = {"target": "showcase/storage", "id": "ida", "type": StringType.typename}
    stage.app.client.send_many([{**target, "value": text} for text in texts])
    return stage.heard("storage", len(texts))


def test_one_language_goes_on_where_the_other_stopped(tmp_path: Path) -> None:
    with noida(tmp_path) as broker:
        names.create_topics(broker.address)
        app = LocalApplication(storage=tmp_path / "storage", log_dir=tmp_path / "log")
        answers = []
        for sdk, last_greeting in (
            ("ours", "hello Bob! I've seen you 2 times!"),
            ("js", "Hello Bob! I've seen you 4 times!"),
            ("apache", "hello Bob! I've seen you 6 times!"),
        ):
            service = service_of(sdk, tmp_path)
            app.module = module_at(tmp_path, service.port, broker)
            service.start()
            try:
                app.start()
                names.send_and_listen(broker.address, count=3, pause_s=0)
                assert broker.consume("greetings", 100, 0.2)[-1].value() == last_greeting.encode()
                answers.append(app.ask("showcase/async", "zoe", "who am I?"))
                app.stop()
            finally:
                service.kill()
        app.close()
        assert answers == answers[:1] * 3
