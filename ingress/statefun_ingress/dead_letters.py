"""Dead letters over HTTP: what workers say of them, and what is told to them. Pure.

Reading is a question to every worker. Telling is an event like any other, in the ingress log before
it is answered: so a letter is delivered once more exactly once, whatever crashes meanwhile.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Annotated, Any, Final, TypeAlias

import msgspec

from statefun_ingress.errors import RequestRefused
from statefun_ingress.feed import State
from statefun_ingress.record import Events
from statefun_ingress.registry import Registry
from statefun_ingress.values import to_json

DEAD_LETTERS: Final = "io.statefun-ray/dead-letters"
"""The reserved function type that letters are told things by."""

NO_ADDRESS: Final = "io.statefun-ray/no-address"
"""The caller of a letter that never was a message; see ``statefun_ray.core.dead_letters``."""

LISTED_DEFAULT: Final = 100
REFUSED_NAMED_MAX: Final = 5
"""Letters that an error names."""

LISTED_MAX: Final = 1_000
"""Letters that a worker says at once."""

Message: TypeAlias = tuple[str, str, str, str, str, bytes | None]

_Row: TypeAlias = tuple[Message, int, str, int, int]
"""As a worker keeps a letter; see ``statefun_ray.core.dead_letters``."""

_row_decoder: msgspec.msgpack.Decoder[_Row] = msgspec.msgpack.Decoder(_Row)
_encode = msgspec.msgpack.Encoder().encode


class Named(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One letter, as a client names it."""

    id: str
    letter: str


class Wanted(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Which letters are listed, as a client says in a body: an id may be too long for a URL.

    Attributes:
        id: those kept under it, which may be empty; those of all ids for None.
        function: those to one function; to all for "".
        limit: how many.
    """

    id: str | None = None
    function: str = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=LISTED_MAX)] = LISTED_DEFAULT


class Choice(msgspec.Struct, forbid_unknown_fields=True):
    """Which letters something is told: some by name, those of a function, or all."""

    letters: list[Named] | None = None
    function: str | None = None
    all: bool = False


_wanted_decoder = msgspec.json.Decoder(Wanted)
_choice_decoder = msgspec.json.Decoder(Choice)


def read_wanted(body: bytes) -> Wanted:
    """Return what a request wants to have listed.

    Raises:
        RequestRefused: 400, it cannot be understood.
    """
    try:
        return _wanted_decoder.decode(body)
    except msgspec.DecodeError as error:
        raise RequestRefused(
            400,
            "The request cannot be understood",
            f'{error}; send {{"id": "...", "function": "namespace/type", "limit": 100}} without what does not matter',
        ) from error


def read_choice(body: bytes) -> Choice:
    """Return what a request chooses.

    Raises:
        RequestRefused: 400, it chooses nothing or several things.
    """
    try:
        choice = _choice_decoder.decode(body)
    except msgspec.DecodeError as error:
        raise RequestRefused(400, "The request cannot be understood", f"{error}; {_HOW}") from error
    if (choice.letters is not None) + (choice.function is not None) + choice.all != 1:
        raise RequestRefused(400, "The request cannot be understood", _HOW)
    return choice


_HOW: Final = (
    'send one of {"letters": [{"id": "...", "letter": "..."}]}, {"function": "namespace/type"}, {"all": true}'
)


def letters_of(answers: Iterable[State], registry: Registry) -> list[dict[str, Any]]:
    """Return the letters in the workers' answers as JSON values, oldest first."""
    letters: list[dict[str, Any]] = []
    for answer in answers:
        for name, _, row in answer.states:
            if row is None:
                continue
            (target_type, id, caller_type, caller_id, value_type, value), attempts, error, first, last = (
                _row_decoder.decode(row)
            )
            letters.append(
                {
                    "id": name.partition("/")[2],
                    "letter": name.partition("/")[0],
                    "function": target_type,
                    "target_id": None if caller_type == NO_ADDRESS else id,
                    "caller": None if caller_type in ("", NO_ADDRESS) else f"{caller_type}/{caller_id}",
                    "type": value_type,
                    **_value(registry, value_type, value),
                    "attempts": attempts,
                    "error": error,
                    "first_failed_ms": first,
                    "last_failed_ms": last,
                }
            )
    letters.sort(key=lambda letter: (letter["last_failed_ms"], letter["id"], letter["letter"]))
    return letters


def is_cut(answers: Iterable[State]) -> bool:
    """Return whether some worker may have more letters than it says at once."""
    return any(answer.is_cut for answer in answers)


def _value(registry: Registry, value_type: str, value: bytes | None) -> dict[str, Any]:
    if value is None:
        return {"value": None}
    text = to_json(value_type, value, is_json=registry.is_json_type(value_type))
    if text is not None:
        return {"value": msgspec.json.decode(text)}
    return {"base64": base64.b64encode(value).decode()}


def chosen(choice: Choice, letters: list[dict[str, Any]], *, are_all: bool = False) -> list[Named]:
    """Return the letters that a choice means.

    Args:
        choice: by name or otherwise.
        letters: those that were found.
        are_all: there are no others, so that what is named and not among them is gone.
    """
    if choice.letters is not None:
        there = {(letter["id"], letter["letter"]) for letter in letters}
        return [one for one in choice.letters if not are_all or (one.id, one.letter) in there]
    return [
        Named(letter["id"], letter["letter"])
        for letter in letters
        if choice.all or letter["function"] == choice.function
    ]


def without_address(named: Iterable[Named], letters: Iterable[dict[str, Any]]) -> list[Named]:
    """Return those that never were messages: they have no address to be delivered to."""
    found = {(letter["id"], letter["letter"]) for letter in letters if letter["target_id"] is None}
    return [one for one in named if (one.id, one.letter) in found]


def refusal(letters: list[Named]) -> RequestRefused:
    """Return why these letters cannot be delivered once more."""
    names = ", ".join(f"{one.id}/{one.letter}" for one in letters[:REFUSED_NAMED_MAX])
    more = len(letters) - REFUSED_NAMED_MAX
    return RequestRefused(
        409,
        "These letters have no address",
        f"{names}{f' and {more} more' if more > 0 else ''}: each is a record of a source that could not become a "
        "message, for the reason in its error; put a corrected record into its source, and drop the letter. "
        "Nothing was redriven",
    )


def commands(action: str, letters: Iterable[Named]) -> list[Events]:
    """Return the events that tell letters to be redriven or dropped."""
    return [
        Events.of_one(DEAD_LETTERS, letter.id, "", "", "", _encode((action, letter.letter)))
        for letter in letters
    ]
