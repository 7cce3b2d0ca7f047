from __future__ import annotations

import pytest

from statefun_sdk import memo
from statefun_sdk.memo import Memo


def test_a_function_is_asked_once() -> None:
    asked: list[str] = []

    def length(text: str) -> int:
        asked.append(text)
        if not text:
            raise ValueError("empty")
        return len(text)

    lengths = Memo(length)
    assert [lengths["a"], lengths["bb"], lengths["a"]] == [1, 2, 1]
    for _ in range(2):
        with pytest.raises(ValueError, match="empty"):
            lengths[""]
    assert asked == ["a", "bb", "", ""], "what it raises is not kept"


def test_a_full_memo_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memo, "ENTRIES_MAX", 3)
    squares: Memo[int, int] = Memo(lambda number: number * number)
    assert [squares[number] for number in range(5)] == [0, 1, 4, 9, 16]
    assert dict(squares) == {3: 9, 4: 16}
