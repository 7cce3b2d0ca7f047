"""The names of an SDK for Python and the parameters behind them, one a line; runs with the SDK that it is about."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from typing import Any

NAMES = (
    "StatefulFunctions",
    "RequestReplyHandler",
    "Context",
    "Message",
    "EgressMessage",
    "SdkAddress",
    "ValueSpec",
    "Type",
    "TypeSerializer",
    "simple_type",
    "make_json_type",
    "make_protobuf_type",
    "message_builder",
    "egress_message_builder",
    "kafka_egress_message",
    "kinesis_egress_message",
)
NOT_MADE_BY_USERS = "Context", "TypeSerializer"


def surface_of(sdk: Any) -> dict[str, list[str]]:
    """Return the parameters of every function, constructor and method, with their defaults."""
    found: dict[str, list[str]] = {}
    for name in NAMES:
        thing = getattr(sdk, name)
        if name not in NOT_MADE_BY_USERS:
            found[name] = _parameters(thing)
        if inspect.isclass(thing):
            for member, method in vars(thing).items():
                if inspect.isfunction(method) and not member.startswith("_"):
                    found[f"{name}.{member}"] = _parameters(method)
    return found


def _parameters(function: Callable[..., Any]) -> list[str]:
    marks = {inspect.Parameter.VAR_KEYWORD: "**", inspect.Parameter.KEYWORD_ONLY: "only by name: "}
    return [
        marks.get(each.kind, "") + each.name + ("" if each.default is each.empty else f"={each.default!r}")
        for each in inspect.signature(function).parameters.values()
    ]


def lines_of(surface: dict[str, list[str]]) -> list[str]:
    """Return the surface as text, in the order of the names."""
    return [f"{name}({', '.join(parameters)})" for name, parameters in sorted(surface.items())]


if __name__ == "__main__":
    print("\n".join(lines_of(surface_of(importlib.import_module(sys.argv[1])))))
