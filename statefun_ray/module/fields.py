"""Reading the nodes of a file: what is there is returned, what is wrong is noted with its place.

Every getter returns a value of its type, also after a problem: then it is a placeholder (``""``,
``0``, an empty list) that never gets out, because a reading with an error has no module. So a
reader is a straight line that reports everything it meets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from statefun_ray.module.flink_duration import DURATION_MS_MAX, FORM, TooLong, parse_flink_duration_ms
from statefun_ray.module.problems import Place, Problems, nearest
from statefun_ray.module.tree import Listing, Mapping, Node, Scalar
from statefun_sdk.address import reserved_namespace

_INTEGER: Final = re.compile(r"[-+]?[0-9][0-9_]*")
_DIGITS_MAX: Final = 1_000
INT_MAX: Final = 2**31 - 1

TYPENAME: Final = "namespace/name with exactly one slash, such as shop/cart"


class Field:
    """A node with its place. Without a node it is a field whose problem is noted already."""

    __slots__ = ("node", "place", "problems")

    def __init__(self, node: Node | None, place: Place, problems: Problems) -> None:
        self.node = node
        self.place = place
        self.problems = problems

    # --- problems ---

    def error(self, expected: str, advice: str = "", *, found: str | None = None) -> None:
        """Note that this field is not as it has to be."""
        self.problems.error(self.place, self.found if found is None else found, expected, advice)

    def warn(self, found: str, advice: str) -> None:
        """Note that this field does perhaps not mean what it was meant to."""
        self.problems.warn(self.place, found, advice)

    @property
    def found(self) -> str:
        """The field in words, for messages."""
        if self.node is None or (isinstance(self.node, Scalar) and self.node.is_null):
            return "nothing"
        if isinstance(self.node, Scalar):
            text = self.node.text
            return repr(text if len(text) <= 80 else text[:77] + "...")
        return "a list" if isinstance(self.node, Listing) else "a mapping"

    @property
    def is_list(self) -> bool:
        """Whether it is a list, which may be empty."""
        return isinstance(self.node, Listing)

    @property
    def is_empty_text(self) -> bool:
        """Whether it is the text of no characters, in quotes, which most keys refuse."""
        return isinstance(self.node, Scalar) and not self.node.is_plain and not self.node.text

    # --- scalars ---

    def text(self, expected: str) -> str:
        """Return a scalar as it is written, ``""`` after a problem.

        Args:
            expected: in words, with an example.
        """
        if isinstance(self.node, Scalar) and not self.node.is_null and self.node.text:
            return self.node.text
        if self.node is not None:
            self.error(expected)
        return ""

    def typename(self, expected: str = TYPENAME) -> str:
        """Return ``namespace/name``; the namespace may be empty, as in StateFun."""
        text = self.text(expected)
        if not text:
            return ""
        namespace, _, name = text.partition("/")
        if not name or "/" in name:
            self.error(expected)
            return ""
        return f"{namespace}/{name}"

    def function_type(self, expected: str = TYPENAME) -> str:
        """Return the type of a function, or a pattern of them, outside of what the runtime reserves."""
        typename = self.typename(expected)
        reserved = reserved_namespace(typename)
        if reserved:
            self.error(expected, reserved)
            return ""
        odd = _odd(typename)
        if odd:
            self.warn(
                f"{typename!r} with {odd}", "it is taken as it is; nothing with another name is meant by it"
            )
        return typename

    def choice(self, choices: Sequence[str], *, any_case: bool = False) -> str:
        """Return one of ``choices``, ``""`` after a problem."""
        expected = "one of " + ", ".join(choices)
        text = self.text(expected)
        wanted = text.lower() if any_case else text
        if wanted in choices or not text:
            return wanted
        meant = nearest(text, choices)
        self.error(expected, f"did you mean {meant}?" if meant else "")
        return ""

    def integer(
        self,
        expected: str,
        *,
        least: int,
        most: int = INT_MAX,
        text_too: bool = True,
        below_is: int | None = None,
    ) -> int:
        """Return a whole number of ``least`` to ``most``.

        Args:
            expected: in words, with the range.
            least: the smallest one allowed.
            most: the largest one allowed.
            text_too: whether quotes around it do not matter.
            below_is: what every smaller number means; they are refused unless given.
        """
        text = self.text(expected)
        if not text:
            return least
        plain = isinstance(self.node, Scalar) and self.node.is_plain
        if not _INTEGER.fullmatch(text) or not (plain or text_too):
            quotes = "write it without quotes" if _INTEGER.fullmatch(text) and not plain else ""
            self.error(expected, quotes)
            return least
        # Of a longer one the first digits say enough; int() has a limit.
        number = int(text.replace("_", "")[:_DIGITS_MAX])
        if below_is is not None and -INT_MAX <= number < least:
            return below_is
        if not least <= number <= most:
            self.error(expected, f"the largest is {most}" if number > most else "")
            return least
        return number

    def duration_ms(self, *, least: int = 1) -> int:
        """Return a duration in Flink's form, in milliseconds."""
        text = self.text(FORM)
        if not text:
            return least
        try:
            ms = parse_flink_duration_ms(text)
        except TooLong:
            self.error(f"at most {DURATION_MS_MAX} ms", "it is too long")
            return least
        except ValueError:
            self.error(FORM)
            return least
        if ms < least:
            self.error(f"{least} ms or more")
            return least
        return ms

    def boolean(self) -> bool:
        """Return ``true`` or ``false``."""
        return self.choice(("true", "false"), any_case=True) == "true"

    # --- lists and mappings ---

    def items(self, expected: str) -> list[Field]:
        """Return the fields of a list."""
        if isinstance(self.node, Listing):
            return [
                Field(item, Place(self.place.source, item.line, f"{self.place.key}[{index}]"), self.problems)
                for index, item in enumerate(self.node.items)
            ]
        if self.node is not None:
            advice = "put '- ' in front of each" if isinstance(self.node, Mapping) else ""
            self.error(expected, advice)
        return []

    def entries(self, expected: str) -> dict[str, Field]:
        """Return the fields of a mapping, by key."""
        if isinstance(self.node, Mapping):
            for name, line in self.node.repeated:
                place = Place(self.place.source, line, self.key_of(name))
                self.problems.warn(place, f"the key {name!r} again", "the last one counts; remove the others")
            fields = {
                name: self.at(name, entry.line, entry.value) for name, entry in self.node.entries.items()
            }
            merged = fields.pop("<<", None)
            if merged is not None:
                merged.warn(
                    "a merge key '<<'", "it is not applied, nor is it in StateFun; write its keys out here"
                )
            return fields
        if self.node is not None:
            self.error(expected)
        return {}

    def single_entry(self, expected: str) -> tuple[str, Field] | None:
        """Return the first entry of a mapping; StateFun looks at no other."""
        entries = self.entries(expected)
        if not entries:
            if isinstance(self.node, Mapping):
                self.error(expected)
            return None
        (name, value), *others = entries.items()
        if others:
            names = ", ".join(repr(other) for other, _ in others)
            self.warn(f"more than one key, of which {names} are ignored", "put '- ' in front of each")
        return name, value

    def section(self, expected: str, known: Sequence[str]) -> Section:
        """Return a mapping of ``known`` keys; others are ignored, with a warning."""
        entries = self.entries(expected)
        for name, value in entries.items():
            if name not in known:
                meant = nearest(name, known)
                hint = f"did you mean {meant!r}?" if meant else "known here: " + ", ".join(known)
                value.warn(f"the unknown key {name!r}", f"it is ignored; {hint}")
        return Section(self, entries)

    def at(self, name: str, line: int, value: Node | None) -> Field:
        """Return the field of a key of this mapping."""
        return Field(value, Place(self.place.source, line, self.key_of(name)), self.problems)

    def key_of(self, name: str) -> str:
        """Return the path of a key of this mapping."""
        return f"{self.place.key}.{name}" if self.place.key else name


def _odd(typename: str) -> str:
    """Return what is probably not meant in the name of a function, though StateFun takes it; "" for nothing."""
    if any(part != part.strip() for part in typename.split("/")):
        return "a blank at an end"
    if not typename.isprintable():
        return "a character that cannot be seen"
    if "{" in typename or "}" in typename:
        return "a brace, though nothing is put in here"
    return ""


class Section:
    """A mapping whose keys are fixed."""

    __slots__ = ("_entries", "field")

    def __init__(self, field: Field, entries: dict[str, Field]) -> None:
        self.field = field
        self._entries = entries

    def get(self, name: str) -> Field | None:
        """Return an optional field, or None; a key without a value counts as absent."""
        found = self._entries.get(name)
        if found is None or found.node is None:
            return None
        if isinstance(found.node, Scalar) and found.node.is_null:
            found.warn(
                f"the key {name!r} without a value", "its default is used; give a value or remove the key"
            )
            del self._entries[name]  # said once, however often it is asked for
            return None
        return found

    def need(self, name: str, expected: str) -> Field:
        """Return a field that has to be there."""
        found = self._entries.get(name)
        if found is not None:
            return found
        missing = self.field.at(name, self.field.place.line, None)
        if isinstance(self.field.node, Mapping):
            missing.error(expected, found="nothing")
        return missing

    def duration_ms(self, name: str, default: int, *, least: int = 1) -> int:
        """Return an optional duration, in milliseconds."""
        found = self.get(name)
        return default if found is None else found.duration_ms(least=least)

    def integer(self, name: str, default: int, expected: str, *, least: int, most: int = INT_MAX) -> int:
        """Return an optional whole number."""
        found = self.get(name)
        return default if found is None else found.integer(expected, least=least, most=most)
