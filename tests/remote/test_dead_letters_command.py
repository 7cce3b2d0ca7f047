"""``statefun-ray dead-letters`` as a person types it, on an application that has some."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from statefun_ray.cli import main
from statefun_ray.cluster import registry
from statefun_ray.local import LocalApplication
from statefun_sdk import Context, IntType, Message, StatefulFunctions, ValueSpec, simple_type

IDS = ("ada", "bob", "with/slash")
FIRST = "0000000000000001"


class Shop:
    """An application with one dead letter for each id; its function can be mended."""

    def __init__(self) -> None:
        self.is_mended = False
        functions = StatefulFunctions()
        functions.register("shop/cart", self._cart, [ValueSpec("count", IntType)])
        functions.register("shop/till", self._cart, [ValueSpec("count", IntType)])
        functions.register("shop/relay", self._relay)
        self.app = LocalApplication(
            functions, name="shop", snapshot_interval_s=0.1, worker={"retry_deadline_ms": 100}
        )

    def _cart(self, context: Context, message: Message) -> None:
        if not self.is_mended:
            raise ValueError(f"{message.as_string()} is too much")
        context.storage.count = (context.storage.count or 0) + 1

    def _relay(self, context: Context, message: Message) -> None:
        """Send on to an id that no client may send to: services of other SDKs may."""
        id, sent = "" if context.address.id == "-" else "x" * 70_000, message.typed_value
        context.send(Message._of("shop/cart", id, sent.typename, sent.value))

    def fail(self, *ids: str, function: str = "shop/cart") -> None:
        """Make a letter for each id, and wait for them."""
        expected = self.letter_count + len(ids)
        for id in ids:
            self.app.send(function, id, "poison")
        self.app.wait_until(lambda: self.letter_count == expected)

    @property
    def letter_count(self) -> int:
        count: int = self.app.status()["dead_letters"]
        return count

    def names(self) -> dict[str, str]:
        """Return ``ID/LETTER`` by id."""
        letters = self.app.client.dead_letters()["dead_letters"]
        return {letter["id"]: f"{letter['id']}/{letter['letter']}" for letter in letters}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setenv("STATEFUN_RAY_HOME", str(tmp_path / "home"))
    made = Shop()
    with made.app as app:
        registry.write_note(registry.Note("shop", "local", os.getpid(), True, app.url, "unused"))
        made.fail(*IDS)
        yield made


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    """Run ``dead-letters shop ...`` in this process; return what it printed, and its complaints."""
    capsys.readouterr()
    assert main(["dead-letters", "shop", *words]) == code
    return capsys.readouterr()


def test_list_names_every_letter_and_why(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    printed, complaints = said(capsys, "list")

    head, _, *rows = printed.splitlines()
    assert head.split("  ")[0] == "letter"
    assert sorted(row.split()[0] for row in rows) == sorted(shop.names().values())
    assert all("shop/cart" in row and "ValueError: poison is too much" in row for row in rows)
    assert complaints == ""
    printed, _ = said(capsys, "list", "--limit", "1")
    assert printed.splitlines()[-1] == "2 more"
    assert said(capsys, "list", "--function", "shop/till") == ("no dead letters\n", "")


def test_list_and_show_are_json_for_programs(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    printed, _ = said(capsys, "list", "--json")
    letters = [json.loads(line) for line in printed.splitlines()]
    assert sorted(letter["id"] for letter in letters) == sorted(IDS)
    assert {(letter["function"], letter["value"]) for letter in letters} == {("shop/cart", "poison")}

    printed, _ = said(capsys, "show", shop.names()["ada"], "--json")
    [shown] = [json.loads(line) for line in printed.splitlines()]
    assert shown == next(letter for letter in letters if letter["id"] == "ada")


def test_show_says_everything_of_the_letters_named(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    printed, _ = said(capsys, "show", shop.names()["with/slash"])

    lines = printed.splitlines()
    assert "id: with/slash" in lines
    assert "function: shop/cart" in lines
    assert "value: poison" in lines
    assert any(re.fullmatch(r"last failed: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", line) for line in lines)
    assert "error: ValueError: poison is too much" in lines


def test_show_says_the_value_of_another_type_as_text_if_it_is_text(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    add = simple_type("shop/add", bytes, bytes)
    shop.app.send("shop/till", "json", b'{"item": "shoes"}', type=add)
    shop.app.send("shop/till", "bytes", b"\x00\xff", type=add)
    shop.app.wait_until(lambda: shop.letter_count == len(IDS) + 2)
    for id, line in (("json", 'value: {"item": "shoes"}'), ("bytes", "base64: AP8=")):
        assert line in said(capsys, "show", shop.names()[id])[0].splitlines()


def test_show_finds_a_letter_behind_all_that_are_said_at_once(
    shop: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = shop.names()
    monkeypatch.setattr("statefun_ray.core.dead_letters.LISTED_MAX", 1)
    monkeypatch.setattr("statefun_ingress.dead_letters.LISTED_MAX", 1)
    for id, name in names.items():
        printed, _ = said(capsys, "show", name)
        assert f"id: {id}" in printed.splitlines()

    # More than are said at once, of one id: then it may be there all the same.
    shop.fail("ada")
    _, complaints = said(capsys, "show", "ada/9999999999999999", code=1)
    assert "no letter ada/9999999999999999 among the oldest 1 of this id" in complaints


@pytest.mark.parametrize("id", ["", "x" * 70_000], ids=["empty", "70 KB"])
def test_a_letter_of_an_id_that_no_client_may_name_is_named_here(
    shop: Shop, capsys: pytest.CaptureFixture[str], id: str
) -> None:
    shop.app.send("shop/relay", id[:1] or "-", "poison")
    shop.app.wait_until(lambda: shop.letter_count == len(IDS) + 1)
    name = shop.names()[id]
    assert name.startswith(f"{id}/")

    rows = said(capsys, "list")[0].splitlines()
    assert max(map(len, rows)) < 300
    assert any(row.startswith(f"{id[:99]}{'…' if id else ''}/") for row in rows)
    assert f"id: {id}" in said(capsys, "show", name)[0].splitlines()
    assert said(capsys, "redrive", name)[0] == "1 letter will be delivered once more\n"
    shop.app.wait_until(lambda: shop.names().get(id, name) != name)  # it has failed again
    assert said(capsys, "drop", shop.names()[id])[0] == "1 letter will be dropped\n"
    shop.app.wait_until(lambda: shop.letter_count == len(IDS))
    assert said(capsys, "drop", name, code=1)[0].splitlines() == [
        "0 letters will be dropped",
        "1 of those named is not there (any more)",
    ]


def test_redrive_delivers_the_letters_that_are_named_once_more(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.is_mended = True

    printed, _ = said(capsys, "redrive", shop.names()["ada"])

    assert printed == "1 letter will be delivered once more\n"
    shop.app.wait_until(lambda: shop.letter_count == 2)
    shop.app.wait_until(lambda: shop.app.state("shop/cart", "ada") == {"count": 1})
    assert json.loads(said(capsys, "redrive", "--all", "--json")[0]) == {
        "action": "redrive",
        "told": 2,
        "more": False,
        "without_address": 0,
    }
    shop.app.wait_until(lambda: shop.letter_count == 0)
    shop.app.wait_until(lambda: shop.app.state("shop/cart", "with/slash") == {"count": 1})
    assert said(capsys, "list") == ("no dead letters\n", "")


def test_drop_throws_away_those_of_one_function(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.fail("eve", function="shop/till")

    assert said(capsys, "drop", "--function", "shop/cart") == ("3 letters will be dropped\n", "")

    shop.app.wait_until(lambda: shop.letter_count == 1)
    assert list(shop.names()) == ["eve"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["show"], "which letter is to be shown? name it as list does: ID/LETTER"),
        (["show", "ada"], "'ada'"),
        (["show", "ada/"], "'ada/'"),
        (
            ["drop"],
            "drop which letters? they are named not at all; give ID/LETTER …, or --function TYPE, or --all",
        ),
        (["redrive", "--all", "--function", "shop/cart"], "in several ways at once"),
        (["list", "--function", "nope"], "'nope'"),
        (["drop", f"ada/{FIRST}", "--all"], "--function TYPE, or --all"),
    ],
)
def test_what_says_nothing_or_too_much_is_refused(
    shop: Shop, capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    printed, complaints = said(capsys, *words, code=2)

    assert printed == ""
    assert complaint in complaints
    assert shop.letter_count == len(IDS)


def test_what_is_not_there_is_told(
    shop: Shop, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, complaints = said(capsys, "show", "nobody/1", shop.names()["ada"], code=1)
    assert "there is no letter nobody/1 (any more); list shows those there are" in complaints
    _, complaints = said(capsys, "list", "--limit", "0", code=1)
    assert "HTTP 4" in complaints

    shop.app.crash()
    _, complaints = said(capsys, "list", code=1)
    assert "shop does not answer at http://" in complaints
    shop.app.start()
    monkeypatch.setenv("STATEFUN_RAY_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert "no application named 'shop' runs" in said(capsys, "list", code=1)[1]


@pytest.mark.parametrize("words", [["shop"], ["shop", "burn"], ["shop", "list", "--limit", "few"], []])
def test_another_grammar_exits_with_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["dead-letters", *words])
    assert ended.value.code == 2


@pytest.mark.slow
def test_it_is_a_command_of_its_own_process(shop: Shop) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "statefun_ray.cli", "dead-letters", "shop", *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    listed = run("list", "--json")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert len(listed.stdout.splitlines()) == len(IDS)
    refused = run("drop")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "Traceback" not in refused.stderr
    assert run("drop", "--all").stdout == "3 letters will be dropped\n"
    shop.app.wait_until(lambda: shop.letter_count == 0)
