"""The first fifteen lines: a function that counts visits and answers.

    statefun-ray run examples.greeter.main:functions --name greeter --http 127.0.0.1:8080

or, on a cluster:

    ray job submit --runtime-env runtime-env.yaml -- python examples/greeter/main.py
"""

from __future__ import annotations

import statefun_ray
from statefun_ray import Context, IntType, Message, StatefulFunctions, ValueSpec, message_builder

functions = StatefulFunctions()


@functions.bind("example/greeter", specs=[ValueSpec("visits", IntType)])
def greet(context: Context, message: Message) -> None:
    """Count one visit and, if someone waits for it, answer."""
    visits = (context.storage.visits or 0) + 1
    context.storage.visits = visits
    text = f"Hello {context.address.id}, this is visit number {visits}."
    if context.caller is not None:
        reply_to = context.caller
        context.send(message_builder(reply_to.typename, reply_to.id, str_value=text))


if __name__ == "__main__":
    statefun_ray.run(functions, name="greeter")
