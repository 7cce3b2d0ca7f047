"""Answers of both SDKs to the same random requests; runs where an official one is, with ours on the path."""

import random
import sys
from datetime import timedelta

import statefun

import statefun_sdk
from statefun_sdk.protocol import Address, FromFunction, ToFunction, TypedValue

STRING = "io.statefun.types/string"
TEXTS = ["write", "delete", "long", "send", "later", "out", "none"]
STATES = (
    ("number", "int", b"\x0d\x05\0\0\0"),
    ("text", "string", b"\n\x01a"),
    ("gone", "long", b""),
    ("extra", "int", b""),
)


def handler_of(sdk):
    """Return a handler with the same function, written once."""
    functions = sdk.StatefulFunctions()

    @functions.bind(
        "t/all",
        [
            sdk.ValueSpec("number", sdk.IntType),
            sdk.ValueSpec("text", sdk.StringType, expire_after_write=timedelta(seconds=5)),
            sdk.ValueSpec("gone", sdk.LongType, expire_after_call=timedelta(hours=1)),
        ],
    )
    async def everything(context, message):
        text = message.as_string()
        if text == "fail":
            raise RuntimeError(text)
        if text == "write":
            context.storage.number = (context.storage.number or 0) + 1
            context.storage.text = str(context.storage.text) if context.caller is None else context.caller.id
        if text == "delete":
            del context.storage.gone
        if text == "long":
            context.storage.gone = -3
        if text == "send":
            context.send(sdk.message_builder(target_typename="a/b", target_id="é", double_value=0.0))
        if text == "later":
            late = sdk.message_builder(target_typename="a/b", target_id="1", bool_value=True)
            context.send_after(timedelta(milliseconds=7.9), late, "token")
            context.cancel_delayed_message("token")
        if text == "out":
            context.send_egress(sdk.kafka_egress_message(typename="e/k", topic="t", value=1.5))
            context.send_egress(
                sdk.kinesis_egress_message(typename="e/k", stream="t", value="é", partition_key="")
            )

    return sdk.RequestReplyHandler(functions)


def request_of(chance):
    """Return a request: states missing, absent or of the wrong type, callers, failures, unknown functions."""
    request = ToFunction()
    batch = request.invocation
    batch.target.namespace, batch.target.id = "t", "1"
    batch.target.type = "all" if chance.random() < 0.95 else "unknown"
    for name, kind, value in STATES:
        roll = chance.random()
        if roll < 0.08:
            continue
        state = batch.state.add(state_name=name)
        if roll < 0.5:
            typename = "io.statefun.types/" + (kind if chance.random() < 0.97 else "bool")
            state.state_value.CopyFrom(TypedValue(typename=typename, has_value=True, value=value))
        elif roll < 0.6:
            state.state_value.CopyFrom(TypedValue())
    for _ in range(chance.randint(1, 6)):
        text = "fail" if chance.random() < 0.02 else chance.choice(TEXTS)
        value = b"\n" + bytes([len(text)]) + text.encode()
        invocation = batch.invocations.add()
        invocation.argument.CopyFrom(TypedValue(typename=STRING, has_value=True, value=value))
        if chance.random() < 0.5:
            invocation.caller.CopyFrom(Address(namespace="x", type="y", id="z"))
    return request.SerializeToString()


def answer_of(handler, request):
    """Return the answer, or what was raised."""
    try:
        return handler.handle_sync(request)
    except Exception as error:  # noqa: BLE001 - what is raised is compared too
        return error


chance = random.Random(int(sys.argv[1]))
theirs, ours = handler_of(statefun), handler_of(statefun_sdk)
same = incomplete = failures = 0
for number in range(int(sys.argv[2])):
    request = request_of(chance)
    one, other = answer_of(theirs, request), answer_of(ours, request)
    if isinstance(one, Exception) or isinstance(other, Exception):
        [kind] = [kind for kind in (TypeError, KeyError, RuntimeError) if isinstance(one, kind)]
        assert isinstance(other, kind), (number, one, other)
        failures += 1
    else:
        one, other = FromFunction.FromString(one), FromFunction.FromString(other)
        assert one == other, (number, one, other)
        same += 1
        incomplete += one.HasField("incomplete_invocation_context")
print(same, incomplete, failures)
