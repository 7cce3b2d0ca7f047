"""``statefun-ray dead-letters`` as a person types it, on an application that has some."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from statefun_ray.cli import main
from statefun_ray.cluster import registry
from statefun_ray.local import LocalApplication
from statefun_sdk import Context, IntType, Message, StatefulFunctions, ValueSpec

IDS = ("ada", "bob", "with/slash")


class Shop:
    """An application with one dead letter for each id; its function can be mended."""

    def __init__(self) -> None:
        self.is_mended = False
        functions = StatefulFunctions()
        functions.register("shop/cart", self._cart, [ValueSpec("count", IntType)])
        functions.register("shop/till", self._cart, [ValueSpec("count", IntType)])
        self.app = LocalApplication(
            functions, name="shop", snapshot_interval_s=0.1, worker={"retry_deadline_ms": 100}
        )

    def _cart(self, context: Context, message: Message) -> None:
        if not self.is_mended:
            raise ValueError(f"{message.as_string()} is too much")
        context.storage.count = (context.storage.count or 0) + 1

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


def test_show_finds_a_letter_behind_all_that_are_said_at_once(
    shop: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = shop.names()
    monkeypatch.setattr("statefun_ray.core.dead_letters.LISTED_MAX", 1)
    monkeypatch.setattr("statefun_ingress.dead_letters.LISTED_MAX", 1)
    for id, name in names.items():
        printed, _ = said(capsys, "show", name)
        assert f"id: {id}" in printed.splitlines()

    # As many as are said at once, of one id: then it may be there all the same.
    _, complaints = said(capsys, "show", "ada/9999999999999999", code=1)
    assert "no letter ada/9999999999999999 among the oldest 1 of this id" in complaints
