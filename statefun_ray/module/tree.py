"""YAML text -> a tree of nodes that know their line. Nothing is converted: a scalar stays text.

What a scalar means is decided where it is read, as StateFun does: ``on`` or ``1e3`` under a key
that wants text is text. Tags are ignored, so no text can make anything happen here.
"""

from __future__ import annotations

from collections.abc import Mapping as MappingABC
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import yaml

_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})


@dataclass(frozen=True, slots=True, eq=False)
class Scalar:
    """One value."""

    line: int
    text: str
    is_plain: bool
    """Written without quotes and not as a block."""

    @property
    def is_null(self) -> bool:
        """Whether it stands for no value."""
        return self.is_plain and self.text in _NULLS


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """A list."""

    line: int
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A key of a mapping with its value."""

    line: int
    """Of the key."""
    value: Node | None
    """None where something is wrong with it that was said already."""


@dataclass(frozen=True, slots=True, eq=False)
class Mapping:
    """A mapping whose keys are text. Of a key that is written twice the last one counts."""

    line: int
    entries: MappingABC[str, Entry]
    repeated: tuple[tuple[str, int], ...] = ()
    """Keys that are overwritten further down, each with the line of the later one."""


Node: TypeAlias = Scalar | Listing | Mapping


@dataclass(frozen=True, slots=True)
class SyntaxFault:
    """Why the text is not YAML from some line on."""

    line: int
    reason: str
    advice: str = ""


def parse(text: str) -> tuple[list[Node], SyntaxFault | None]:
    """Return the documents of a YAML stream, and why they end early if they do."""
    documents: list[Node] = []
    try:
        # Documents before a fault stay in the list, so that their problems are reported too.
        documents.extend(map(_converted, yaml.compose_all(text, Loader=yaml.SafeLoader)))
    except _Fault as fault:
        return documents, fault.fault
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        advice = "" if error.character else "save the file as UTF-8"  # every other byte is 0 in UTF-16
        return documents, SyntaxFault(line, f"the character U+{error.character:04X}", advice)
    except yaml.MarkedYAMLError as error:
        return documents, _fault_of(error)
    except RecursionError:
        return documents, SyntaxFault(1, "nodes inside nodes without end")
    return documents, None


def _fault_of(error: yaml.MarkedYAMLError) -> SyntaxFault:
    mark = error.problem_mark or error.context_mark
    context = "" if error.context == "while scanning for the next token" else error.context or ""
    problem = (error.problem or "").removeprefix("found ")  # whoever says it puts that in front
    reason = ": ".join(part for part in (context.removeprefix("found "), problem) if part)
    advice = ""
    if "'\\t' that cannot start" in problem:
        reason, advice = "a tab before a key or a value", "put blanks there, which are all that YAML takes"
    elif problem.startswith("undefined alias"):
        advice = "its anchor has to stand before it in the same document; write the value out"
    return SyntaxFault(mark.line + 1 if mark else 1, reason, advice)


class _Fault(Exception):
    def __init__(self, fault: SyntaxFault) -> None:
        super().__init__(fault)
        self.fault = fault


def _text(node: yaml.ScalarNode) -> str:
    """Return the text of a scalar. Escapes for the two halves of a character make one, as in Java."""
    text: str = node.value
    if text.isascii():
        return text
    try:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise _Fault(SyntaxFault(node.start_mark.line + 1, "an escape for half a character")) from None


def _converted(document: yaml.Node) -> Node:
    return _Converter().convert(document)


@dataclass
class _Converter:
    """Turns the composer's nodes into ours. An anchor's node is converted once, however often it is used."""

    _done: dict[int, Node] = field(default_factory=dict)
    _open: set[int] = field(default_factory=set)

    def convert(self, node: yaml.Node) -> Node:
        if id(node) in self._done:
            return self._done[id(node)]
        line = node.start_mark.line + 1
        if id(node) in self._open:
            raise _Fault(SyntaxFault(line, "an alias to a node that contains it"))
        self._open.add(id(node))
        converted = self._convert(node, line)
        self._open.discard(id(node))
        self._done[id(node)] = converted
        return converted

    def _convert(self, node: yaml.Node, line: int) -> Node:
        if isinstance(node, yaml.ScalarNode):
            return Scalar(line, _text(node), node.style is None)
        if isinstance(node, yaml.SequenceNode):
            return Listing(line, tuple(self.convert(item) for item in node.value))
        entries: dict[str, Entry] = {}
        repeated = []
        for key, value in node.value:
            key_line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise _Fault(SyntaxFault(key_line, "a key that is a list or a mapping"))
            name = _text(key)
            if name in entries:
                repeated.append((name, key_line))
            entries[name] = Entry(key_line, self.convert(value))
        return Mapping(line, entries, tuple(repeated))
