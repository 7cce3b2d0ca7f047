"""Which functions share a service, and so a lane."""

from __future__ import annotations

import pytest

from statefun_ray.io.remote.invoker import RemoteInvoker
from statefun_ray.module.model import AsyncTransport, Endpoint, Module, OkHttpTransport


@pytest.mark.parametrize(
    ("template", "is_shared"),
    [
        ("http://host/{function.name}", True),
        ("http://{function.name}.local/statefun", False),
        ("http+unix:///run/all.sock/{function.name}", True),
        ("HTTP+UNIX:///run/my.sockets/{function.name}.sock/statefun", False),
    ],
)
async def test_functions_share_a_service_unless_host_or_socket_has_their_name(
    template: str, is_shared: bool
) -> None:
    transport = OkHttpTransport() if "unix" in template.lower() else AsyncTransport()
    invoker = RemoteInvoker(Module(endpoints=(Endpoint("ns/*", template, transport=transport),)), {})
    lanes = {lane.name for name in ("ns/f", "ns/g") if (lane := invoker.lane_of(name)) is not None}
    assert len(lanes) == (1 if is_shared else 2)
    invoker.close()
