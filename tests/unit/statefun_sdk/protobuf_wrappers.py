"""The wrapper messages of ``io.statefun.sdk.types``, built at run time for comparison."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "io.statefun.sdk.types"
_FIELD = descriptor_pb2.FieldDescriptorProto
_FIELDS = {
    "BooleanWrapper": _FIELD.TYPE_BOOL,
    "IntWrapper": _FIELD.TYPE_SFIXED32,
    "LongWrapper": _FIELD.TYPE_SFIXED64,
    "FloatWrapper": _FIELD.TYPE_FLOAT,
    "DoubleWrapper": _FIELD.TYPE_DOUBLE,
    "StringWrapper": _FIELD.TYPE_STRING,
}


def wrapper_classes() -> dict[str, Any]:
    """Return the message classes by name, from a descriptor pool of their own."""
    file = descriptor_pb2.FileDescriptorProto(name="wrappers.proto", package=_PACKAGE, syntax="proto3")
    for name, field_type in _FIELDS.items():
        field = file.message_type.add(name=name).field.add()
        field.name, field.number, field.type, field.label = "value", 1, field_type, _FIELD.LABEL_OPTIONAL
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _FIELDS
    }
