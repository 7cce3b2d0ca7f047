"""Dead letters over HTTP, in a whole application: listed, delivered once more, dropped; a restart between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from statefun_ray.api import open_checkpoint
from statefun_ray.io.client import RequestFailed
from statefun_ray.local import LocalApplication
from statefun_sdk import Context, IntType, Message, StatefulFunctions, StringType, ValueSpec

POISON = {"poison"}

functions = StatefulFunctions()


@functions.bind("shop/cart", specs=[ValueSpec("count", IntType), ValueSpec("last", StringType)])
def cart(context: Context, message: Message) -> None:
    text = message.as_string() or ""
    if text in POISON:
        raise ValueError(f"{text} is too much")
    context.storage.count = (context.storage.count or 0) + 1
    context.storage.last = text


def names(app: LocalApplication) -> set[tuple[str, str]]:
    return {(letter["id"], letter["letter"]) for letter in letters(app)}


RELAYED_TO: dict[str, str] = {}


@functions.bind("shop/relay")
def relay(context: Context, message: Message) -> None:
    # Services of other SDKs may send to any id; ours refuses the empty one when a message is built.
    sent = message.typed_value
    context.send(Message._of("shop/cart", RELAYED_TO[context.address.id], sent.typename, sent.value))


@pytest.fixture(autouse=True)
def poison() -> None:
    POISON.clear()
    POISON.add("poison")


def application(folder: Path) -> LocalApplication:
    return LocalApplication(
        functions,
        storage=folder / "storage",
        log_dir=folder / "log",
        snapshot_interval_s=0.1,
        worker={"retry_deadline_ms": 150},
    )


def letters(app: LocalApplication, **wanted: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = app.client.dead_letters(**wanted)["dead_letters"]
    return found


def test_letters_are_listed_redriven_and_dropped(tmp_path: Path) -> None:
    with application(tmp_path) as app:
        for id in ("ada", "bob", "eve"):
            for text in ("one", "poison", "two"):
                app.send("shop/cart", id, text)
        app.wait_until(lambda: app.status()["dead_letters"] == 3)
        assert {id: app.state("shop/cart", id)["count"] for id in ("ada", "bob", "eve")} == dict.fromkeys(
            ("ada", "bob", "eve"), 2
        )
        found = letters(app)
        assert sorted(letter["id"] for letter in found) == ["ada", "bob", "eve"]
        first = found[0]
        assert (first["function"], first["value"], first["caller"]) == ("shop/cart", "poison", None)
        assert first["error"] == "ValueError: poison is too much"
        assert first["attempts"] >= 2
        assert first["last_failed_ms"] >= first["first_failed_ms"] > 0
        assert letters(app, function="shop/other") == []
        assert [letter["id"] for letter in letters(app, id="bob")] == ["bob"]

        app.kill_worker(0)
        app.restart(workers=3)
        app.wait_until(lambda: app.status()["dead_letters"] == 3)
        POISON.clear()
        bob = next(letter for letter in letters(app) if letter["id"] == "bob")
        named = {"letters": [{"id": "bob", "letter": bob["letter"]}]}
        assert app.client.tell_dead_letters("redrive", named) == (1, False, 0)
        app.wait_until(lambda: app.state("shop/cart", "bob") == {"count": 3, "last": "poison"})
        app.wait_until(lambda: letters(app, id="bob") == [])
        assert app.client.tell_dead_letters("redrive", named) == (0, False, 0)  # gone: nothing happens
        eve = next(letter for letter in letters(app) if letter["id"] == "eve")
        assert app.client.tell_dead_letters(
            "drop", {"letters": [{"id": "eve", "letter": eve["letter"]}]}
        ) == (1, False, 0)
        assert app.client.tell_dead_letters("redrive", {"function": "shop/cart"})[0] >= 1
        app.wait_until(lambda: app.status()["dead_letters"] == 0)
        app.wait_until(lambda: app.state("shop/cart", "ada")["count"] == 3)
        app.snapshot()
        assert [app.state("shop/cart", id)["count"] for id in ("ada", "bob", "eve")] == [3, 3, 2]


def test_what_does_not_fit_into_one_answer_is_said_and_told_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("statefun_ray.core.dead_letters.LISTED_MAX", 5)
    monkeypatch.setattr("statefun_ingress.dead_letters.LISTED_MAX", 5)
    with application(tmp_path) as app:
        for number in range(30):
            app.send("shop/cart", f"id{number}", "poison")
        app.wait_until(lambda: app.status()["dead_letters"] == 30)
        found = app.client.dead_letters()
        assert found["more"]
        assert found["count"] <= 10
        POISON.clear()
        has_more, told = True, 0
        while has_more:
            count, has_more, _ = app.client.tell_dead_letters("redrive", {"all": True})
            told += count
            app.wait_until(lambda told=told: app.status()["dead_letters"] == 30 - told)  # type: ignore[misc]
        app.wait_until(lambda: app.status()["dead_letters"] == 0)
        assert [app.state("shop/cart", f"id{n}")["count"] for n in range(30)] == [1] * 30


@pytest.mark.parametrize("id", ["", "x" * 70_000], ids=["empty", "70 KB"])
def test_a_letter_of_an_id_that_no_client_may_name_is_as_any_other(tmp_path: Path, id: str) -> None:
    RELAYED_TO.update(one=id, two="ada")
    with application(tmp_path) as app:
        for to in ("one", "two"):
            app.send("shop/relay", to, "poison")
        app.wait_until(lambda: app.status()["dead_letters"] == 2)
        [letter] = letters(app, id=id)
        assert (letter["target_id"], letter["function"]) == (id, "shop/cart")
        for choice in ({"all": True}, {"function": "shop/cart"}):
            before = names(app)
            assert app.client.tell_dead_letters("redrive", choice) == (2, False, 0)
            app.wait_until(lambda before=before: len(names(app) - before) == 2)  # type: ignore[misc]  # again
        assert {one["id"] for one in letters(app)} == {id, "ada"}
        POISON.clear()
        assert app.client.tell_dead_letters("drop", {"all": True}) == (2, False, 0)
        app.wait_until(lambda: app.status()["dead_letters"] == 0)


def test_letters_are_a_table(tmp_path: Path) -> None:
    with application(tmp_path) as app:
        app.send("shop/cart", "ada", "poison")
        app.wait_until(lambda: app.status()["dead_letters"] == 1)
        app.snapshot()
        storage = (tmp_path / "storage").as_uri()
        [row] = open_checkpoint(storage).table("io.statefun-ray/dead-letters").to_pylist()
        assert (row["id"], row["function"], row["type"]) == ("ada", "shop/cart", "io.statefun.types/string")
        assert row["error"] == "ValueError: poison is too much"
        sql = 'SELECT id, attempts FROM "io.statefun-ray/dead-letters"'
        assert open_checkpoint(storage).sql(sql).to_pylist()[0]["id"] == "ada"


@pytest.mark.parametrize(
    "choice", [{}, {"all": True, "function": "a/b"}, {"letters": [{"id": "x"}]}, {"al": True}, {"all": False}]
)
def test_what_chooses_nothing_or_too_much_is_refused(tmp_path: Path, choice: dict[str, Any]) -> None:
    with application(tmp_path) as app:
        with pytest.raises(RequestFailed, match=r'send one of \{"letters"') as refused:
            app.client.tell_dead_letters("drop", choice)
        assert refused.value.status == 400
