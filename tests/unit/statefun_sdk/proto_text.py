"""Reads the part of the proto3 language that our ``.proto`` files use."""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import descriptor_pb2

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "string": _FIELD.TYPE_STRING,
    "bytes": _FIELD.TYPE_BYTES,
    "bool": _FIELD.TYPE_BOOL,
    "int32": _FIELD.TYPE_INT32,
    "int64": _FIELD.TYPE_INT64,
}


def parse(name: str, text: str) -> Any:
    """Return the ``FileDescriptorProto`` of a file, as protoc makes it without source locations."""
    words = re.findall(r'[\w.]+|"[^"]*"|[{}=;]', re.sub(r"//[^\n]*", "", text))
    return _Parser(words).file(name)


class _Parser:
    def __init__(self, words: list[str]) -> None:
        self._words = words
        self._at = 0
        self._messages: set[str] = set()
        self._enums: set[str] = set()

    def file(self, name: str) -> Any:
        file = descriptor_pb2.FileDescriptorProto(name=name)
        while self._at < len(self._words):
            word = self._next()
            if word == "syntax":
                file.syntax = self._statement("=")[0].strip('"')
            elif word == "package":
                file.package = self._statement()[0]
            else:
                assert word == "message"
                self._message(file.message_type.add(), f".{file.package}")
        for message in file.message_type:
            self._resolve(message, f".{file.package}.{message.name}")
        return file

    def _next(self) -> str:
        self._at += 1
        return self._words[self._at - 1]

    def _statement(self, *skipped: str) -> list[str]:
        end = self._words.index(";", self._at)
        words = [word for word in self._words[self._at : end] if word not in skipped]
        self._at = end + 1
        return words

    def _message(self, message: Any, scope: str) -> None:
        message.name = self._next()
        assert self._next() == "{"
        path = f"{scope}.{message.name}"
        self._messages.add(path)
        optional = []
        while (word := self._next()) != "}":
            if word == "message":
                self._message(message.nested_type.add(), path)
            elif word == "enum":
                self._enum(message.enum_type.add(), path)
            elif word == "oneof":
                index = len(message.oneof_decl)
                message.oneof_decl.add(name=self._next())
                assert self._next() == "{"
                while (word := self._next()) != "}":
                    self._field(message, word).oneof_index = index
            elif word == "optional":
                optional.append(self._field(message, self._next()))
            else:
                self._field(message, word)
        for field in optional:
            # Each is a oneof of its own, behind those that the file names.
            field.proto3_optional, field.oneof_index = True, len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{field.name}")

    def _field(self, message: Any, word: str) -> Any:
        field = message.field.add(label=_FIELD.LABEL_OPTIONAL)
        if word == "repeated":
            field.label, word = _FIELD.LABEL_REPEATED, self._next()
        name, number = self._statement("=")
        field.name, field.number = name, int(number)
        if word in _SCALARS:
            field.type = _SCALARS[word]
        else:
            field.type_name = word
        return field

    def _enum(self, enum: Any, scope: str) -> None:
        enum.name = self._next()
        self._enums.add(f"{scope}.{enum.name}")
        assert self._next() == "{"
        while (word := self._next()) != "}":
            assert self._next() == "="
            enum.value.add(name=word, number=int(self._next()))
            assert self._next() == ";"

    def _resolve(self, message: Any, scope: str) -> None:
        """Find what a type is called in full: the innermost scope that knows it."""
        for field in message.field:
            if field.type_name:
                parts = scope.split(".")
                known = self._messages | self._enums
                field.type_name = next(
                    full
                    for depth in range(len(parts), 0, -1)
                    if (full := ".".join([*parts[:depth], field.type_name])) in known
                )
                field.type = _FIELD.TYPE_ENUM if field.type_name in self._enums else _FIELD.TYPE_MESSAGE
        for nested in message.nested_type:
            self._resolve(nested, f"{scope}.{nested.name}")
