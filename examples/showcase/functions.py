"""StateFun in six functions, one for each thing there is to know.

- ``showcase/types``: a value has a type, and comes out as it went in
- ``showcase/messaging``: to others, to oneself, later, not at all, and back
- ``showcase/egress``: records for Kafka, for Kinesis, and for whoever comes along with curl
- ``showcase/storage``: what is remembered, what expires, what is deleted
- ``showcase/async``: waiting without holding anybody up, and answering who asked
- ``showcase/serving``: where everything comes together, once for each record of a Kafka topic

They run as a service, which is ``service.py``, and as they are inside the workers of statefun-ray.
With Apache's SDK the import says ``statefun``.
"""

import asyncio
from datetime import timedelta

from examples.showcase.user_profile_pb2 import UserProfile
from statefun_sdk import (
    Context,
    IntType,
    Message,
    StatefulFunctions,
    StringType,
    ValueSpec,
    egress_message_builder,
    kafka_egress_message,
    kinesis_egress_message,
    make_json_type,
    make_protobuf_type,
    message_builder,
    simple_type,
)

functions = StatefulFunctions()

GREET_REQUEST = make_json_type("showcase/GreetRequest")
BASKET = make_json_type("showcase/Basket")
USER_PROFILE = make_protobuf_type(UserProfile)  # "type.googleapis.com/showcase.UserProfile"
CELSIUS = simple_type("showcase/Celsius", lambda degrees: str(degrees).encode(), float)
EGRESS_RECORD = make_json_type("io.statefun.playground/EgressRecord")


# -- types ------------------------------------------------------------------------------


@functions.bind("showcase/types")
def types(context: Context, message: Message) -> None:
    """Say what came. Six types are built in; JSON, protobuf and your own bytes are as good."""
    if message.is_bool():
        said = f"a bool: {message.as_bool()}"
    elif message.is_int():
        said = f"an int of 32 bits: {message.as_int()}"
    elif message.is_long():
        said = f"a long of 64 bits: {message.as_long()}"
    elif message.is_float():
        said = f"a float: {message.as_float()}"
    elif message.is_double():
        said = f"a double: {message.as_double()}"
    elif message.is_string():
        said = f"a string: {message.as_string()}"
    elif message.is_type(GREET_REQUEST):
        said = f"JSON: somebody called {message.as_type(GREET_REQUEST)['name']}"
    elif message.is_type(USER_PROFILE):
        profile = message.as_type(USER_PROFILE)
        said = f"protobuf: {profile.name} likes {profile.favorite_ice_cream} and {profile.favorite_show}"
    elif message.is_type(CELSIUS):
        degrees = message.as_type(CELSIUS)
        said = f"a type of our own: {degrees} degrees"
    else:
        said = f"{message.value_typename()}, which nobody here knows: {message.raw_value()!r}"
    say(context, "types", said)


# -- messaging --------------------------------------------------------------------------


@functions.bind("showcase/messaging")
def messaging(context: Context, message: Message) -> None:
    """Send messages. A type and an id are an address; where that is, the runtime knows."""
    me = context.address

    if message.is_type(USER_PROFILE):  # what showcase/async answers, see the end
        profile = message.as_type(USER_PROFILE)
        context.send(message_builder("showcase/types", me.id, value=profile, value_type=USER_PROFILE))
        return
    if context.caller == me:
        say(context, "messaging", f"a note of {me.id} to itself: {message.as_string()}")
        return

    # From one sender to one receiver they arrive in this order.
    context.send(message_builder("showcase/types", me.id, bool_value=True))
    context.send(message_builder("showcase/types", me.id, int_value=123))
    context.send(message_builder("showcase/types", me.id, long_value=10_000_000_000))
    context.send(message_builder("showcase/types", me.id, float_value=2.5))
    context.send(message_builder("showcase/types", me.id, double_value=0.1))
    context.send(message_builder("showcase/types", me.id, str_value="Hello!"))
    joe = {"name": "Joe"}
    context.send(message_builder("showcase/types", me.id, value=joe, value_type=GREET_REQUEST))
    context.send(message_builder("showcase/types", me.id, value=21.5, value_type=CELSIUS))

    # To oneself: now, later, and never. A delayed message outlives any crash; its token can call it off.
    context.send(message_builder(me.typename, me.id, str_value="now"))
    context.send_after(timedelta(seconds=1), message_builder(me.typename, me.id, str_value="a second later"))
    never = message_builder(me.typename, me.id, str_value="never")
    context.send_after(timedelta(milliseconds=500), never, cancellation_token="changed my mind")
    context.cancel_delayed_message("changed my mind")

    # A question: the answer is a message like any other, and comes to us because we are its caller.
    context.send(message_builder("showcase/async", me.id, str_value="who am I?"))


# -- egress -----------------------------------------------------------------------------


@functions.bind("showcase/egress")
def egress(context: Context, message: Message) -> None:
    """Send records out. What leaves is what was sent, once, after the state it comes from is safe."""
    name, text = context.address.id, message.as_string()

    context.send_egress(kafka_egress_message("showcase/greets", topic="greetings", key=name, value=text))

    # A Kinesis record is for an egress too: send_egress, not send.
    context.send_egress(
        kinesis_egress_message("showcase/kinesis", stream="greetings", partition_key=name, value=text)
    )

    # Any other egress takes a value of the type it knows. The playground's are read with curl.
    record = {"topic": "egress", "payload": f"{name} says {text}"}
    context.send_egress(egress_message_builder("io.statefun.playground/egress", record, EGRESS_RECORD))


def say(context: Context, topic: str, text: str) -> None:
    """Put a text where ``curl 127.0.0.1:8091/<topic>`` finds it."""
    record = {"topic": topic, "payload": text}
    context.send_egress(egress_message_builder("io.statefun.playground/egress", record, EGRESS_RECORD))


# -- storage ----------------------------------------------------------------------------


@functions.bind(
    "showcase/storage",
    specs=[
        ValueSpec("calls", IntType),
        ValueSpec("bargain", StringType, expire_after_write=timedelta(seconds=2)),
        ValueSpec("basket", BASKET),
    ],
)
def storage(context: Context, message: Message) -> None:
    """Remember something for one id. No other id sees it, and no lock is needed."""
    storage, text = context.storage, message.as_string()

    storage.calls = (storage.calls or 0) + 1  # what was never set is None

    if storage.bargain is None:  # never set, or more than two seconds old
        storage.bargain = text

    if text == "check out":
        del storage.basket
    else:
        # A value that is read is a copy. To change it, assign it.
        storage.basket = [*(storage.basket or []), text]

    basket = ", ".join(storage.basket or ["nothing"])
    say(context, "storage", f"call {storage.calls}, basket: {basket}; bargain: {storage.bargain}")


# -- async ------------------------------------------------------------------------------


@functions.bind("showcase/async", specs=[ValueSpec("profile", USER_PROFILE)])
async def look_up(context: Context, message: Message) -> None:
    """Ask two services at once, remember what they said, and answer. Other ids do not wait for it."""
    profile = context.storage.profile
    if profile is None:
        name = context.address.id
        ice_cream, show = await asyncio.gather(favorite_ice_cream(name), favorite_show(name))
        profile = UserProfile(name=name, favorite_ice_cream=ice_cream, favorite_show=show)
        context.storage.profile = profile

    asking = context.caller
    if asking is not None:  # who comes from outside and does not wait is nobody's caller
        answer = message_builder(asking.typename, asking.id, value=profile, value_type=USER_PROFILE)
        context.send(answer)


async def favorite_ice_cream(name: str) -> str:
    """Stand in for a service that takes its time."""
    await asyncio.sleep(0.1)
    return "mint chocolate"


async def favorite_show(name: str) -> str:
    """Stand in for another one."""
    await asyncio.sleep(0.2)
    return "The Office"


# -- serving ----------------------------------------------------------------------------


@functions.bind("showcase/serving", specs=[ValueSpec("seen", IntType)])
async def serving(context: Context, message: Message) -> None:
    """Greet whoever the Kafka topic ``names`` names; the record's key is our id."""
    name = message.as_type(GREET_REQUEST)["name"]
    seen = (context.storage.seen or 0) + 1
    context.storage.seen = seen

    greeting = f"hello {name}! I've seen you {seen} times!"
    print(greeting, flush=True)  # after a crash perhaps once more; the record below leaves once
    context.send_egress(kafka_egress_message("showcase/greets", topic="greetings", key=name, value=greeting))
