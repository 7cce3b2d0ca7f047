"""The protobuf messages between runtime and remote functions, and those inside egress records.

``proto/*.proto`` say what they are; ``proto/descriptors.binpb`` is the same, compiled, and is
what is loaded here. After a change of the former::

    cd sdk/statefun_sdk/proto && protoc --descriptor_set_out=descriptors.binpb *.proto

Classes are made at run time, so no version of protobuf is asked for, and from a descriptor pool
of their own, so the official SDK can be imported into the same process: its messages of the same
names are other classes.

``protocol.pyi`` tells type checkers what the classes look like.
"""

from __future__ import annotations

import pkgutil
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = [
    "Address",
    "FromFunction",
    "KafkaProducerRecord",
    "KinesisEgressRecord",
    "ToFunction",
    "TypedValue",
]


def _message_class(name: str) -> Any:
    return _with_nested(_pool.FindMessageTypeByName(f"statefun_sdk.protocol.{name}"))


def _with_nested(descriptor: Any) -> Any:
    """Make a class whose nested messages are attributes, which pure-Python protobuf leaves out."""
    message_class = _class_of(descriptor)
    for nested in descriptor.nested_types:
        setattr(message_class, nested.name, _with_nested(nested))
    return message_class


_pool = descriptor_pool.DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(
    pkgutil.get_data("statefun_sdk", "proto/descriptors.binpb") or b""
).file:
    _pool.AddSerializedFile(_file.SerializeToString())

# Protobuf before 4.22 knows only the second way, protobuf from 5 only the first.
_class_of: Any = (
    getattr(message_factory, "GetMessageClass", None) or message_factory.MessageFactory(_pool).GetPrototype
)

Address: Any = _message_class("Address")
TypedValue: Any = _message_class("TypedValue")
ToFunction: Any = _message_class("ToFunction")
FromFunction: Any = _message_class("FromFunction")
KafkaProducerRecord: Any = _message_class("KafkaProducerRecord")
KinesisEgressRecord: Any = _message_class("KinesisEgressRecord")
