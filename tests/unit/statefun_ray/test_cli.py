"""The command line without a cluster: grammar, exit codes, and the commands that read storages."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from statefun_checkpoints.model import FunctionSpec, StateSpec
from statefun_checkpoints.store import LocalStore
from statefun_ray import __version__
from statefun_ray.cli import main
from statefun_ray.cluster import operate
from statefun_ray.commands import applications
from tests.unit.checkpoints.building import App, carts

FUNCTIONS = {"shop/cart": FunctionSpec({"total": StateSpec(type="io.statefun.types/int")})}


@pytest.fixture
def storage(tmp_path: Path) -> str:
    """A storage with one snapshot of twenty carts."""
    app = App(LocalStore(tmp_path))
    app.snapshot(1, [app.part(carts(20), 1)], functions=FUNCTIONS)
    return str(tmp_path)


def said(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> str:
    """Run a command that exits with ``code`` and return what it printed, errors last."""
    assert main(argv) == code
    captured = capsys.readouterr()
    return captured.out + captured.err


@pytest.mark.slow
def test_help_answers_without_loading_the_runtime() -> None:
    program = (
        "import sys; from statefun_ray.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(*(name for name in ('ray', 'pyarrow', 'asyncio', 'statefun_sdk') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    *shown, loaded = done.stdout.splitlines()
    assert any("run an application" in line for line in shown)
    assert loaded == ""


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["fly"], ["stop"], ["run", "a:b", "--workers", "two"]])
def test_a_wrong_command_exits_with_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nowhere_at_all:functions"], "no module 'nowhere_at_all'"),
        (["statefun_ray.cli"], "write module:name"),
        (["statefun_ray.cli:main"], "is of type function, not StatefulFunctions"),
        (["examples.greeter.main:functions", "--snapshot-interval", "soon"], "not a duration"),
        (["examples.greeter.main:functions", "--http", "here"], "HOST:PORT"),
        (["examples.greeter.main:functions", "--workers", "0"], "1 to 128"),
        (["examples.greeter.main:functions", "--worker-cpus", "0"], "more than 0"),
        (["examples.greeter.main:functions", "--standbys", "-1"], "0 to 128"),
        (["examples.greeter.main:functions", "--name", "A B"], "lower-case letters"),
        (["examples.greeter.main:functions", "--name", "running"], "is used for something else"),
        (["examples.greeter.main:functions", "--storage", "ftp://x"], "s3://bucket/prefix"),
        (["examples.greeter.main:functions", "--sink", "x"], "NAMESPACE/NAME=URI"),
        (["examples.greeter.main:functions", "--http-limit", "bodyBytesMax"], "NAME=BYTES"),
        (["examples.greeter.main:functions", "--http-limit", "body=5"], "one of bodyBytesMax, bulkBytesMax"),
        (["examples.greeter.main:functions", "--http-limit", "idBytesMax=0"], "1 to 1048576"),
    ],
)
def test_run_refuses_what_cannot_work_and_says_what_can(
    capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    text = said(capsys, "run", *options, code=2)
    assert words in text
    assert "Traceback" not in text


def test_stop_and_status_name_the_applications_there_are(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATEFUN_RAY_HOME", str(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", "local")
    for command in ("stop", "status"):
        text = said(capsys, command, "shop", code=1)
        assert "no application named 'shop' runs" in text
        assert "running: none" in text


def test_a_stop_that_takes_long_says_what_it_waits_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> dict[str, Any]:
        deadline = time.monotonic() + 10
        while "waited for" not in said_so_far[-1] and time.monotonic() < deadline:
            time.sleep(0.01)
            said_so_far.append(capsys.readouterr().err)
        return {"last_snapshot": {"id": 7}}

    said_so_far = [""]
    monkeypatch.setattr(operate, "stop", stop)
    monkeypatch.setattr(operate, "waited_for", lambda name: f"the final snapshot of {name} is waited for")
    monkeypatch.setattr(applications, "STOP_SILENT_S", 0.05)
    assert said(capsys, "stop", "shop") == "shop has ended with snapshot 7\n"
    assert "shop has not ended yet: the final snapshot of shop is waited for" in said_so_far[-1]
    assert "--now waits for nothing" in said_so_far[-1]


@pytest.mark.parametrize("busy_with", ["", "shop/cart"])
def test_status_shows_what_a_worker_waits_for_if_it_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, busy_with: str
) -> None:
    worker = {"role": "worker", "index": 0, "pid": 9, "node": "here", "state": "running", "trouble": ""}
    status = {
        "name": "shop",
        "url": "http://here",
        "storage": "file:///x",
        "phase": "running",
        "generation": 1,
    }
    monkeypatch.setattr(
        operate, "status", lambda *_: {**status, "processes": [{**worker, "busy_with": busy_with}]}
    )
    text = said(capsys, "status", "shop")
    assert ("busy_with" in text, "shop/cart" in text) == (bool(busy_with), bool(busy_with))
    assert "trouble" not in text


def test_status_says_where_the_playground_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status = {
        "name": "shop",
        "url": "http://here",
        "playground": {"egress": "http://there"},
        "storage": "file:///x",
        "phase": "running",
        "generation": 1,
        "processes": [],
    }
    monkeypatch.setattr(operate, "status", lambda *_: status)
    assert said(capsys, "status", "shop").splitlines()[1] == "playground egress at http://there"


def test_status_names_where_functions_fail_and_when_they_are_tried_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = {"function": "shop/cart", "attempts": 4, "error": "KeyError: 'sku'\nno such\nthing"}
    status = {
        "name": "shop",
        "url": "http://here",
        "storage": "file:///x",
        "phase": "running",
        "generation": 1,
        "processes": [],
        "retrying": 37,
        "retrying_addresses": [
            {**failing, "id": f"id{number}", "since_ms": 90_000 - number, "next_attempt_ms": None}
            for number in range(30)
        ],
    }
    monkeypatch.setattr(operate, "status", lambda *_: status)
    text = said(capsys, "status", "shop")
    assert "37 addresses retrying" in text
    assert "a function fails and is tried again at 37 addresses, 10 of them:" in text
    rows = [line.split() for line in text.splitlines() if line.startswith("shop/cart/")]
    assert [row[0] for row in rows] == [f"shop/cart/id{number}" for number in range(29, 19, -1)]
    assert rows[0][1] == "4"
    assert rows[0][4:] == ["now", "KeyError:", "'sku'", "no", "such", "thing"]


def test_an_address_where_nothing_listens_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "status", "shop", "--address", "127.0.0.1:1", code=1)
    assert "no Ray cluster answers at 127.0.0.1:1" in text


def test_snapshots_are_listed(capsys: pytest.CaptureFixture[str], storage: str) -> None:
    assert "periodic" in said(capsys, "snapshots", storage)
    row = json.loads(said(capsys, "snapshots", storage, "--json"))
    assert (row["snapshot"], row["generation"]) == (1, 1)


def test_verify_says_that_all_is_well(capsys: pytest.CaptureFixture[str], storage: str) -> None:
    text = said(capsys, "verify", storage)
    assert "1 snapshots" in text
    assert "0 dead letters in snapshot 1" in text


def test_sql_shows_rows_in_columns(capsys: pytest.CaptureFixture[str], storage: str) -> None:
    text = said(capsys, "sql", storage, 'SELECT id, total FROM "shop/cart" ORDER BY total DESC LIMIT 2')
    assert [line.split() for line in text.splitlines()] == [
        ["id", "total"],
        ["-------", "-----"],
        ["cart-19", "19"],
        ["cart-18", "18"],
    ]


def test_sql_as_json_is_a_line_for_each_row(capsys: pytest.CaptureFixture[str], storage: str) -> None:
    text = said(capsys, "sql", storage, 'SELECT count(*) AS carts FROM "shop/cart"', "--json")
    assert json.loads(text) == {"carts": 20}


def test_a_missing_runtime_is_said_in_a_sentence(
    capsys: pytest.CaptureFixture[str], storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "statefun_checkpoints.tables", raising=False)

    assert main(["sql", storage, "SELECT 1"]) == 1
    assert "pip install 'statefun-ray[runtime]'" in capsys.readouterr().err


def test_a_wrong_query_names_the_tables(capsys: pytest.CaptureFixture[str], storage: str) -> None:
    text = said(capsys, "sql", storage, 'SELECT * FROM "shop/card"', code=2)
    assert '"shop/cart"' in text


def test_a_query_without_rows_is_no_mistake(capsys: pytest.CaptureFixture[str], storage: str) -> None:
    assert said(capsys, "sql", storage, "") == "no rows\n"


def test_what_is_damaged_is_named_with_its_storage(
    capsys: pytest.CaptureFixture[str], storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (Path(storage) / "job.json").write_text("{")
    monkeypatch.chdir(storage)
    for command in (["snapshots"], ["verify"], ["sql", "SELECT 1"]):
        text = said(capsys, command[0], ".", *command[1:], code=1)
        assert text.startswith(f"statefun-ray: {Path(storage).as_uri()}: job.json is corrupt")
        assert "put each of these objects back as it was" in text


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["stop", "A B"], "NAME is 'A B'"),
        (["verify", "ftp://x"], "URI is 'ftp://x'"),
        (["run", "examples.greeter.main:functions", "--sink", "a/b=ftp://x"], "--sink a/b=URI is 'ftp://x'"),
    ],
)
def test_what_is_wrong_is_called_as_the_user_wrote_it(
    capsys: pytest.CaptureFixture[str], argv: list[str], words: str
) -> None:
    assert words in said(capsys, *argv, code=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--log-dir", "file/log", "log folder {folder}/file/log cannot be used: Not a directory"),
        ("--http", "192.0.2.1:8080", "choose an address of this machine"),
    ],
)
def test_what_the_machine_does_not_allow_is_said_before_ray_is_started(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    value: str,
    words: str,
) -> None:
    monkeypatch.setenv("STATEFUN_RAY_HOME", str(tmp_path / "home"))
    (tmp_path / "file").touch()
    folder = str(tmp_path)
    text = said(
        capsys,
        *("run", "examples.greeter.main:functions", "--http", "127.0.0.1:0"),
        *(option, value if option == "--http" else f"{folder}/{value}"),
        code=1,
    )
    assert words.format(folder=folder) in text
    assert "starting a local Ray" not in text


@pytest.mark.parametrize("command", [["snapshots"], ["verify"], ["sql"]])
def test_a_storage_without_application_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str]
) -> None:
    query = ["SELECT 1"] if command == ["sql"] else []
    text = said(capsys, *command, str(tmp_path / "none"), *query, code=1)
    assert str(tmp_path / "none") in text
    assert "check the URI" in text
