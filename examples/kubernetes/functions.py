"""One function, for lines that people write to a Kafka topic: it reads bytes, and needs no type for that.

The record's key is the id, its value is the message. What the bytes are called is written in module.yaml,
and comes along as ``value_typename``; ``raw_value`` is what they are, untouched.

On Apache's SDK the import says ``statefun``.
"""

from statefun_sdk import Context, Message, StatefulFunctions

functions = StatefulFunctions()

LINE = "example/Line"  # the valueType of the topic


@functions.bind("example/hello")
def hello(context: Context, message: Message) -> None:
    """Print who wrote what."""
    name = context.address.id
    if message.value_typename() != LINE:
        print(f"{name} sent a {message.value_typename()}, which nobody here reads", flush=True)
        return
    # Bytes that are no UTF-8 are shown as what they are: an error would come again with every attempt.
    text = (message.raw_value() or b"").decode(errors="backslashreplace")
    print(f"Hello from {name}: you wrote {text}!", flush=True)
