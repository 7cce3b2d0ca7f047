"""``dead-letters``: messages that nobody could process."""

from __future__ import annotations

import argparse
import base64
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

from statefun_ray.commands.applications import add_address
from statefun_ray.commands.output import PROG, moment, print_json, print_table

LETTERS_OF_ID_MAX: Final = 1_000
"""As many as an ingress says at once."""

ID_SHOWN_CHARS_MAX: Final = 100
"""Of an id in a table: every row is as wide as the widest."""


def add_dead_letters(commands: Any) -> None:
    """Add ``dead-letters``."""
    letters = commands.add_parser(
        "dead-letters",
        help="messages that nobody could process: list, show, redrive, drop",
        description="Messages that nobody could process. A letter is named ID/LETTER, as list shows it, or /LETTER "
        "if its id is empty.",
    )
    letters.add_argument("name", metavar="NAME")
    letters.add_argument("action", choices=("list", "show", "redrive", "drop"))
    letters.add_argument("letters", metavar="ID/LETTER", nargs="*", help="the letters meant")
    letters.add_argument("--function", metavar="TYPE", help="those of one function type")
    letters.add_argument("--all", action="store_true", help="all of them")
    letters.add_argument("--limit", type=int, default=100, metavar="N", help="to list (default: 100)")
    letters.add_argument("--json", action="store_true", help="a line of JSON for each letter")
    add_address(letters)
    letters.set_defaults(command=_dead_letters)


def _dead_letters(arguments: argparse.Namespace) -> int:
    from statefun_ray.cluster import operate
    from statefun_ray.cluster.errors import BadChoice, BadSetting
    from statefun_ray.io.client import HttpClient, RequestFailed
    from statefun_sdk.address import check_qualified

    if arguments.function:
        check_qualified(arguments.function, "--function")
    named = []
    for text in arguments.letters:
        id, slash, letter = text.rpartition("/")
        if not slash or not letter:  # the id of a message between functions may be empty
            raise BadSetting("a letter", text, "ID/LETTER, as list shows it")
        named.append({"id": id, "letter": letter})
    client = HttpClient(operate.url_of(arguments.name, arguments.address))
    try:
        if arguments.action in ("list", "show"):
            return _show_letters(client, arguments, named)
        choice: dict[str, Any] = {"letters": named} if named else {}
        if arguments.function:
            choice["function"] = arguments.function
        if arguments.all:
            choice["all"] = True
        if len(choice) != 1:
            raise BadChoice(arguments.action, len(choice))
        told, has_more, kept = client.tell_dead_letters(arguments.action, choice)
    except RequestFailed as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{PROG}: {arguments.name} does not answer at {client.url}: {error}", file=sys.stderr)
        return 1
    finally:
        client.close()
    gone = len(named) - told - kept
    what = "delivered once more" if arguments.action == "redrive" else "dropped"
    if arguments.json:
        print_json({"action": arguments.action, "told": told, "more": has_more, "without_address": kept})
    else:
        print(f"{told} letter{'s' * (told != 1)} will be {what}")
        if gone > 0:
            print(f"{gone} of those named {'is' if gone == 1 else 'are'} not there (any more)")
        if kept:
            print(
                f"{kept} stay{'s' * (kept == 1)}: records that could not become messages have no address; drop them"
            )
        if has_more:
            print("there are more: say it once more when these are gone")
    return 1 if gone > 0 else 0


def _show_letters(client: Any, arguments: argparse.Namespace, named: Sequence[dict[str, str]]) -> int:
    from statefun_ray.cluster.errors import BadChoice

    if arguments.action == "show" and not named:
        raise BadChoice("show", 0)
    if named:
        letters, missing = _named_letters(client, named, arguments.function or "")
        if missing:
            for text in missing:
                print(f"{PROG}: {text}", file=sys.stderr)
            return 1
        count, is_cut = len(letters), False
    else:
        found = client.dead_letters(function=arguments.function or "", limit=arguments.limit)
        letters, count, is_cut = found["dead_letters"], found["count"], found["more"]
    if arguments.json or arguments.action == "show":
        for letter in letters:
            if arguments.json:
                print_json(letter)
            else:
                print("\n".join(_lines_of(letter)))
        return 0
    rows = [
        {
            "letter": f"{_shown(letter['id'])}/{letter['letter']}",
            "function": letter["function"],
            "type": letter["type"],
            "attempts": letter["attempts"],
            "last failed": moment(letter["last_failed_ms"]),
            "error": letter["error"],
        }
        for letter in letters
    ]
    print_table(rows, empty="no dead letters")
    if count > len(letters) or is_cut:
        print(f"{'at least ' * is_cut}{count - len(letters)} more")
    if any(len(letter["id"]) > ID_SHOWN_CHARS_MAX for letter in letters):
        print("an id with … in it is longer than that: --json has it in full")
    return 0


def _lines_of(letter: dict[str, Any]) -> Iterator[str]:
    """Yield what there is to say of a letter, for people: times as they are read, bytes as text if they are any."""
    for name, value in letter.items():
        if name.endswith("_ms"):
            yield f"{name.removesuffix('_ms').replace('_', ' ')}: {moment(value)}"
        elif name == "base64" and (text := _text_in(base64.b64decode(value))):
            yield f"value: {text}"
        else:
            yield f"{name}: {value}"


def _text_in(value: bytes) -> str:
    """Return bytes as text; nothing if they are not all text, and of one line."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() else ""


def _shown(id: str) -> str:
    return id if len(id) <= ID_SHOWN_CHARS_MAX else f"{id[: ID_SHOWN_CHARS_MAX - 1]}…"


def _named_letters(
    client: Any, named: Sequence[dict[str, str]], function: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return letters by name, in the order of ``named``, and a sentence for each that was not found."""
    letters: list[dict[str, Any]] = []
    missing: list[str] = []
    # Asked for by id: of all letters together only the first so many are said.
    found = {
        id: client.dead_letters(function=function, id=id, limit=LETTERS_OF_ID_MAX)
        for id in dict.fromkeys(name["id"] for name in named)
    }
    for name in named:
        of_id = found[name["id"]]
        [letter] = [x for x in of_id["dead_letters"] if x["letter"] == name["letter"]] or [None]
        if letter is not None:
            letters.append(letter)
            continue
        text = f"there is no letter {name['id']}/{name['letter']}"
        if function:
            text += f" of {function}"
        missing.append(
            f"{text} among the oldest {len(of_id['dead_letters']):,} of this id; redrive or drop some of them"
            if of_id["more"]
            else f"{text} (any more); list shows those there are"
        )
    return letters, missing
