"""The SDK of statefun-ray: what the author of stateful functions imports.

The names and rules are those of the official StateFun Python SDK; see the guide for what
is better. Only protobuf and the standard library are needed to import it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from statefun_sdk.address import SdkAddress
from statefun_sdk.context import Context
from statefun_sdk.errors import (
    StateFunError,
    UndecodableValueError,
    UnknownFunctionError,
    UserError,
    UserTypeError,
    UserValueError,
)
from statefun_sdk.functions import BoundFunction, StatefulFunctions
from statefun_sdk.kafka import KafkaRecord, KafkaRecordType
from statefun_sdk.messages import EgressMessage, Message, egress_message_builder, message_builder
from statefun_sdk.specs import ValueSpec
from statefun_sdk.types import (
    BoolType,
    DoubleType,
    FloatType,
    IntType,
    JsonType,
    LongType,
    StringType,
    Type,
    TypedValue,
    TypeSerializer,
    json_typenames,
    make_json_type,
    make_protobuf_type,
    simple_type,
)

if TYPE_CHECKING:
    from statefun_sdk.egress import kafka_egress_message as kafka_egress_message
    from statefun_sdk.egress import kafka_tombstone_message as kafka_tombstone_message
    from statefun_sdk.egress import kinesis_egress_message as kinesis_egress_message
    from statefun_sdk.request_reply import MalformedRequestError as MalformedRequestError
    from statefun_sdk.request_reply import RequestReplyHandler as RequestReplyHandler

# What needs protobuf or asyncio is looked up on first use: a worker imports this package too, and
# most functions need neither.
_LATE = {
    "kafka_egress_message": "statefun_sdk.egress",
    "kafka_tombstone_message": "statefun_sdk.egress",
    "kinesis_egress_message": "statefun_sdk.egress",
    "MalformedRequestError": "statefun_sdk.request_reply",
    "RequestReplyHandler": "statefun_sdk.request_reply",
}


def __getattr__(name: str) -> Any:
    home = _LATE.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(home), name)
    return found


__all__ = [
    "MalformedRequestError",
    "RequestReplyHandler",
    "kafka_egress_message",
    "kafka_tombstone_message",
    "kinesis_egress_message",
    "BoolType",
    "BoundFunction",
    "Context",
    "DoubleType",
    "EgressMessage",
    "FloatType",
    "IntType",
    "UserTypeError",
    "UserValueError",
    "JsonType",
    "KafkaRecord",
    "KafkaRecordType",
    "LongType",
    "Message",
    "SdkAddress",
    "StateFunError",
    "StatefulFunctions",
    "StringType",
    "Type",
    "TypeSerializer",
    "TypedValue",
    "UndecodableValueError",
    "UnknownFunctionError",
    "UserError",
    "ValueSpec",
    "egress_message_builder",
    "json_typenames",
    "make_json_type",
    "make_protobuf_type",
    "message_builder",
    "simple_type",
]
