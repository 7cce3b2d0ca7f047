"""Certificates of a transport: whom it trusts, and who it says it is."""

from __future__ import annotations

import ssl
from pathlib import Path

from statefun_ray.module.locations import path_of
from statefun_ray.module.model import AsyncTransport, Transport
from statefun_sdk.errors import UserValueError


def tls_context(transport: Transport) -> ssl.SSLContext | None:
    """Return how to speak TLS; None where the transport says nothing of it, as okhttp never does.

    Raises:
        UserValueError: a certificate or key cannot be read.
    """
    if not isinstance(transport, AsyncTransport) or not (transport.trust_cacerts or transport.client_cert):
        return None
    try:
        context = ssl.create_default_context(cafile=path_of(transport.trust_cacerts) or None)
        if transport.client_cert:
            password = None
            if transport.client_key_password:
                # As it is: StateFun does not cut off a line break either.
                password = Path(path_of(transport.client_key_password)).read_bytes()
            context.load_cert_chain(path_of(transport.client_cert), path_of(transport.client_key), password)
    except (OSError, ValueError) as error:
        raise UserValueError(
            f"the certificates of a transport cannot be used: trust_cacerts {transport.trust_cacerts!r}, client_cert "
            f"{transport.client_cert!r}, client_key {transport.client_key!r}: {error}"
        ) from None
    return context
