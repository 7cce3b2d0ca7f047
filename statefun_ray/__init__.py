"""Durable, exactly-once stateful functions on Ray.

Everything a function author needs is re-exported here from ``statefun_sdk``; ``run``
starts an application on Ray, ``open_checkpoint`` reads a snapshot as tables, ``testing`` runs an
application inside a test and holds the simulator.

Names are looked up on first use. Importing ``statefun_ray.core`` runs this file too, and
must pull in neither ray, nor pyarrow, nor the SDK.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from statefun_ray import testing as testing
    from statefun_ray.api import open_checkpoint as open_checkpoint
    from statefun_ray.api import run as run
    from statefun_sdk import BoolType as BoolType
    from statefun_sdk import BoundFunction as BoundFunction
    from statefun_sdk import Context as Context
    from statefun_sdk import DoubleType as DoubleType
    from statefun_sdk import EgressMessage as EgressMessage
    from statefun_sdk import FloatType as FloatType
    from statefun_sdk import IntType as IntType
    from statefun_sdk import JsonType as JsonType
    from statefun_sdk import KafkaRecord as KafkaRecord
    from statefun_sdk import KafkaRecordType as KafkaRecordType
    from statefun_sdk import LongType as LongType
    from statefun_sdk import MalformedRequestError as MalformedRequestError
    from statefun_sdk import Message as Message
    from statefun_sdk import RequestReplyHandler as RequestReplyHandler
    from statefun_sdk import SdkAddress as SdkAddress
    from statefun_sdk import StatefulFunctions as StatefulFunctions
    from statefun_sdk import StateFunError as StateFunError
    from statefun_sdk import StringType as StringType
    from statefun_sdk import Type as Type
    from statefun_sdk import TypedValue as TypedValue
    from statefun_sdk import TypeSerializer as TypeSerializer
    from statefun_sdk import UndecodableValueError as UndecodableValueError
    from statefun_sdk import UnknownFunctionError as UnknownFunctionError
    from statefun_sdk import UserError as UserError
    from statefun_sdk import UserTypeError as UserTypeError
    from statefun_sdk import UserValueError as UserValueError
    from statefun_sdk import ValueSpec as ValueSpec
    from statefun_sdk import egress_message_builder as egress_message_builder
    from statefun_sdk import json_typenames as json_typenames
    from statefun_sdk import kafka_egress_message as kafka_egress_message
    from statefun_sdk import kafka_tombstone_message as kafka_tombstone_message
    from statefun_sdk import kinesis_egress_message as kinesis_egress_message
    from statefun_sdk import make_json_type as make_json_type
    from statefun_sdk import make_protobuf_type as make_protobuf_type
    from statefun_sdk import message_builder as message_builder
    from statefun_sdk import simple_type as simple_type

__version__ = "0.1.0"

_SDK_NAMES = (
    "StatefulFunctions",
    "BoundFunction",
    "Context",
    "Message",
    "EgressMessage",
    "SdkAddress",
    "ValueSpec",
    "Type",
    "TypeSerializer",
    "TypedValue",
    "simple_type",
    "make_json_type",
    "make_protobuf_type",
    "BoolType",
    "IntType",
    "LongType",
    "FloatType",
    "DoubleType",
    "StringType",
    "JsonType",
    "KafkaRecord",
    "KafkaRecordType",
    "json_typenames",
    "message_builder",
    "egress_message_builder",
    "kafka_egress_message",
    "kafka_tombstone_message",
    "kinesis_egress_message",
    "RequestReplyHandler",
    "MalformedRequestError",
    "StateFunError",
    "UserError",
    "UserTypeError",
    "UserValueError",
    "UndecodableValueError",
    "UnknownFunctionError",
)

# Public name -> (module, attribute). The empty attribute is the module itself.
_HOMES: dict[str, tuple[str, str]] = {
    **{name: ("statefun_sdk", name) for name in _SDK_NAMES},
    "run": ("statefun_ray.api", "run"),
    "open_checkpoint": ("statefun_ray.api", "open_checkpoint"),
    "testing": ("statefun_ray.testing", ""),
}

__all__ = [
    "StatefulFunctions",
    "BoundFunction",
    "Context",
    "Message",
    "EgressMessage",
    "SdkAddress",
    "ValueSpec",
    "Type",
    "TypeSerializer",
    "TypedValue",
    "simple_type",
    "make_json_type",
    "make_protobuf_type",
    "BoolType",
    "IntType",
    "LongType",
    "FloatType",
    "DoubleType",
    "StringType",
    "JsonType",
    "KafkaRecord",
    "KafkaRecordType",
    "json_typenames",
    "message_builder",
    "egress_message_builder",
    "kafka_egress_message",
    "kafka_tombstone_message",
    "kinesis_egress_message",
    "RequestReplyHandler",
    "MalformedRequestError",
    "StateFunError",
    "UserError",
    "UserTypeError",
    "UserValueError",
    "UndecodableValueError",
    "UnknownFunctionError",
    "run",
    "open_checkpoint",
    "testing",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import a public name from where it lives, once."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module_name, attribute = home
    module = importlib.import_module(module_name)
    value = getattr(module, attribute) if attribute else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Every public name, looked up yet or not."""
    return sorted({*globals(), *__all__})
