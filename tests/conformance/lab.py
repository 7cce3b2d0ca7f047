"""Applications of the checklist's services, and what is seen of them from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from statefun_ray.io.client import RequestFailed
from statefun_ray.local import LocalApplication
from statefun_ray.module.model import Endpoint, Module
from statefun_sdk import Message, StringType
from statefun_sdk.protocol import ToFunction
from tests.remote.serving import Answer, Service


def module(service: Service, **more: object) -> Module:
    """Return an application of a service that is built for one test, or written by hand."""
    return Module(endpoints=(Endpoint("ns/*", service.url),), **more)  # type: ignore[arg-type]


def lab_module(url: str, **more: object) -> Module:
    """Return an application of the lab's functions, at the service or at a window on it."""
    return Module(endpoints=(Endpoint("lab/*", url),), **more)  # type: ignore[arg-type]


def text(message: Message) -> str:
    return message.as_string() or ""


def logged(app: LocalApplication, id: str = "x", function: str = "lab/log") -> list[str]:
    try:
        kept = app.state(function, id).get("log")
    except RequestFailed as error:
        if error.status != 503:  # its worker is recovering
            raise
        return []
    return [] if kept is None else str(kept).split(",")


decode_text = StringType.serializer().deserialize


def texts_of(request: ToFunction) -> list[str]:
    """Return the string arguments of a request."""
    return [decode_text(invocation.argument.value) for invocation in request.invocation.invocations]


class Gate:
    """Holds up the first request for which it is closed, until it is opened from the test's thread."""

    def __init__(self, service: Service, is_held: Callable[[ToFunction], bool]) -> None:
        self._is_held = is_held
        self._is_open = False
        self.held = 0
        service.behaviour = self._wait

    async def _wait(self, request: ToFunction, _body: bytes) -> Answer | None:
        if self._is_held(request):
            self.held += 1
            while not self._is_open:  # noqa: ASYNC110 - opened from another thread
                await asyncio.sleep(0.002)
        return None

    def open(self) -> None:
        self._is_open = True
