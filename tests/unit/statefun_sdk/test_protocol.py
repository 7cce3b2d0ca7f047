"""The messages of the remote protocol: their descriptors and their bytes."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from statefun_sdk import protocol
from statefun_sdk.protocol import (
    Address,
    FromFunction,
    KafkaProducerRecord,
    KinesisEgressRecord,
    ToFunction,
    TypedValue,
)
from tests.unit.statefun_sdk.proto_text import parse

FOLDER = Path(protocol.__file__).parent
PROTO = FOLDER / "proto"
MESSAGES = [getattr(protocol, name) for name in protocol.__all__]
MODIFY = FromFunction.PersistedValueMutation.MODIFY
ONE = TypedValue(typename="io.statefun.types/int", has_value=True, value=bytes.fromhex("0d01000000"))


def test_the_text_is_what_was_compiled() -> None:
    compiled = descriptor_pb2.FileDescriptorSet.FromString((PROTO / "descriptors.binpb").read_bytes())
    for file in compiled.file:
        for message in file.message_type:
            drop_json_names(message)
    files = {path.name: parse(path.name, path.read_text(encoding="utf-8")) for path in PROTO.glob("*.proto")}
    assert {file.name: file for file in compiled.file} == files


def drop_json_names(message: Any) -> None:
    """Take out what protoc adds to the text."""
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        drop_json_names(nested)


def test_type_checkers_see_the_same_fields() -> None:
    tree = ast.parse((FOLDER / "protocol.pyi").read_text(encoding="utf-8"))
    seen = {
        statement.name: declared(statement) for statement in tree.body if isinstance(statement, ast.ClassDef)
    }
    assert seen == {message.DESCRIPTOR.name: described(message.DESCRIPTOR) for message in MESSAGES}


def declared(message: ast.ClassDef) -> dict[str, Any]:
    """Names of fields, nested messages and enums in a class of the stub."""
    names: dict[str, Any] = {}
    for statement in message.body:
        if isinstance(statement, ast.ClassDef):
            names[statement.name] = declared(statement)
        elif isinstance(statement, ast.AnnAssign):
            assert isinstance(statement.target, ast.Name)
            names[statement.target.id] = None
        else:
            assert isinstance(statement, ast.FunctionDef)
            arguments = [argument.arg for argument in statement.args.kwonlyargs]
            values = [name for name in names if name[0].isupper()]
            assert [name for name in names if name not in values] == arguments
    return names


def described(message: Any) -> dict[str, Any]:
    """The same, of a descriptor."""
    names: dict[str, Any] = {nested.name: described(nested) for nested in message.nested_types}
    for enum in message.enum_types:
        names[enum.name] = dict.fromkeys(enum.values_by_name)
        names |= dict.fromkeys(enum.values_by_name)
    return names | dict.fromkeys(message.fields_by_name)


def test_the_classes_stay_out_of_the_pool_that_all_share() -> None:
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("statefun_sdk.protocol.Address")


def test_nothing_else_is_public() -> None:
    assert {
        name for name, value in vars(protocol).items() if inspect.isclass(value) and name[0].isupper()
    } - {"Any"} == set(protocol.__all__)


@pytest.mark.parametrize(
    ("message", "data"),
    [
        (FromFunction(), ""),
        (FromFunction(invocation_result=FromFunction.InvocationResponse()), "a20600"),
        (
            FromFunction(incomplete_invocation_context=FromFunction.IncompleteInvocationContext()),
            "aa0600",
        ),
        (FromFunction.PersistedValueMutation(state_name="x"), "120178"),
        (FromFunction.PersistedValueMutation(mutation_type=MODIFY), "0801"),
        (Address(namespace="a", type="b", id="c"), "0a0161120162 1a0163"),
        (TypedValue(typename="t/t", has_value=True), "0a03742f741001"),
        (ONE, "0a15696f2e737461746566756e2e74797065732f696e7410011a050d01000000"),
        (
            ToFunction(
                invocation=ToFunction.InvocationBatchRequest(
                    target=Address(namespace="a", type="b", id="c"),
                    state=[ToFunction.PersistedValue(state_name="x")],
                    invocations=[ToFunction.Invocation(caller=Address(id="d"), argument=TypedValue())],
                )
            ),
            "a20619 0a090a01611201621a0163 12030a0178 1a07 0a031a0164 1200",
        ),
        (
            FromFunction.DelayedInvocation(
                is_cancellation_request=True, cancellation_token="t", delay_in_ms=5
            ),
            "0805 5001 5a0174",
        ),
        (FromFunction.EgressMessage(egress_namespace="n", egress_type="e"), "0a016e120165"),
        (
            FromFunction.PersistedValueSpec(
                state_name="s",
                expiration_spec=FromFunction.ExpirationSpec(
                    mode=FromFunction.ExpirationSpec.AFTER_INVOKE, expire_after_millis=9
                ),
                type_typename="t/t",
            ),
            "0a0173 120408021009 1a03742f74",
        ),
        (KafkaProducerRecord(key="k", value_bytes=b"v", topic="t"), "0a016b1201761a0174"),
        (
            KinesisEgressRecord(partition_key="p", value_bytes=b"v", stream="s", explicit_hash_key="h"),
            "0a01701201761a0173220168",
        ),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_the_bytes_are_those_of_the_protocol(message: Any, data: str) -> None:
    assert message.SerializeToString().hex() == data.replace(" ", "")
    assert type(message).FromString(bytes.fromhex(data)) == message


def test_a_state_without_a_value_can_be_told_from_an_empty_one() -> None:
    absent = ToFunction.PersistedValue.FromString(bytes.fromhex("0a0178"))
    empty = ToFunction.PersistedValue.FromString(bytes.fromhex("0a0178120410010a00"))
    assert not absent.HasField("state_value")
    assert empty.state_value.has_value


def test_the_kind_of_an_answer_can_be_told() -> None:
    assert FromFunction.FromString(b"").WhichOneof("response") is None
    assert FromFunction.FromString(b"\xa2\x06\x00").WhichOneof("response") == "invocation_result"
    assert FromFunction.FromString(b"\xaa\x06\x00").WhichOneof("response") == "incomplete_invocation_context"
