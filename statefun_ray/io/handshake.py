"""The first frames on every connection between processes of an application: who is calling?

No I/O here, so the asyncio transport and the heartbeat thread's blocking socket share it. The
caller names application, generation, role and both ends; a listener that expects something else
refuses with a text that says what. With a shared secret both sides also prove that they know the
generation's key, each over both nonces and the whole hello, so nothing can be replayed:

    caller                              listener
    Hello(…, nonce)              ->
                                 <-     Challenge(nonce, proof)       only with a secret
    Proof(proof)                 ->
                                 <-     Welcome  |  Refused(text)
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

HANDSHAKE_FRAME_BYTES_MAX: Final = 4096
"""No frame before the end of the handshake is longer: an unknown caller gets no memory of ours."""

NONCE_BYTES: Final = 16


class Hello(msgspec.Struct, tag="hello", frozen=True):
    """Who calls whom: the first frame of a connection."""

    app: str
    generation: int
    role: str
    """channel | control | heartbeat."""
    source: int
    """Worker index of the caller."""
    target: int
    """Worker index of the listener, or -1 for the coordinator."""
    nonce: bytes = b""


class Challenge(msgspec.Struct, tag="challenge", frozen=True):
    """The listener proves that it knows the key, and asks the caller to do the same."""

    nonce: bytes
    proof: bytes


class Proof(msgspec.Struct, tag="proof", frozen=True):
    """The caller's answer to a challenge."""

    proof: bytes


class Welcome(msgspec.Struct, tag="welcome", frozen=True):
    """The listener accepts; every later frame is the application's."""


class Refused(msgspec.Struct, tag="refused", frozen=True):
    """The listener does not accept, and says why."""

    text: str


class HandshakeRefused(ConnectionError):
    """A peer refused the connection, or is not who it should be."""

    def __init__(self, peer: str, text: str) -> None:
        super().__init__(peer, text)
        self.peer, self.text = peer, text

    def __str__(self) -> str:
        return f"connection with {self.peer} refused: {self.text}"


Admit: TypeAlias = Callable[[Hello], str]
"""Decides about a caller: empty to accept, else the text that it is refused with."""

_encode = msgspec.msgpack.Encoder().encode
_from_listener = msgspec.msgpack.Decoder(Challenge | Welcome | Refused)
_hello_decoder = msgspec.msgpack.Decoder(Hello)
_proof_decoder = msgspec.msgpack.Decoder(Proof)


def generation_key(secret: bytes, app: str, generation: int) -> bytes:
    """Return the key of one generation; knowing it tells nothing about another generation's."""
    return hmac.digest(secret, f"statefun-ray generation\0{app}\0{generation}".encode(), hashlib.sha256)


def _prove(secret: bytes, side: str, hello: Hello, nonce: bytes) -> bytes:
    key = generation_key(secret, hello.app, hello.generation)
    return hmac.digest(key, side.encode() + b"\0" + nonce + _encode(hello), hashlib.sha256)


def refusal_of(hello: Hello, *, app: str, generation: int, roles: tuple[str, ...], target: int) -> str:
    """Return why a listener of this identity refuses ``hello``, or an empty text."""
    if hello.app != app:
        return f"this is application {app!r}, the caller belongs to {hello.app!r}"
    if hello.generation != generation:
        return f"this is generation {generation}, the caller belongs to generation {hello.generation}"
    if hello.role not in roles:
        return f"no {hello.role!r} connections here, only {', '.join(roles)}"
    if hello.target != target:
        return f"this is {end_name(target)}, the caller asks for {end_name(hello.target)}"
    return ""


def end_name(index: int) -> str:
    """Return how messages to people name one end of a connection."""
    return "the coordinator" if index < 0 else f"worker {index}"


class CallerHandshake:
    """The caller's side: send ``hello_frame``, then answer frames until ``is_done``."""

    def __init__(self, hello: Hello, *, nonce: bytes, secret: bytes | None, peer: str) -> None:
        self.hello = msgspec.structs.replace(hello, nonce=nonce)
        self.hello_frame = _encode(self.hello)
        self.is_done = False
        self._secret = secret
        self._peer = peer
        self._is_peer_proven = secret is None

    def received(self, frame: bytes) -> bytes | None:
        """Return the frame to answer with, if any.

        Raises:
            HandshakeRefused: the listener refused, proved nothing, or speaks another protocol.
        """
        try:
            message = _from_listener.decode(frame)
        except msgspec.DecodeError as error:
            raise HandshakeRefused(self._peer, f"it does not speak this protocol ({error})") from error
        if isinstance(message, Refused):
            raise HandshakeRefused(self._peer, message.text)
        if isinstance(message, Challenge):
            return self._answer(message)
        if not self._is_peer_proven:
            raise HandshakeRefused(
                self._peer, "it did not prove the application's secret; give both sides the same secret"
            )
        self.is_done = True
        return None

    def _answer(self, challenge: Challenge) -> bytes:
        if self._secret is None:
            raise HandshakeRefused(
                self._peer, "it asks for the application's secret and none is configured here"
            )
        expected = _prove(self._secret, "listener", self.hello, challenge.nonce)
        if not hmac.compare_digest(expected, challenge.proof):
            raise HandshakeRefused(self._peer, "it proved another secret; give both sides the same secret")
        self._is_peer_proven = True
        return _encode(Proof(_prove(self._secret, "caller", self.hello, challenge.nonce)))


class ListenerHandshake:
    """The listener's side: answer frames until ``is_done``; then ``hello`` says who called."""

    def __init__(self, admit: Admit, *, nonce: bytes, secret: bytes | None, peer: str) -> None:
        self.hello: Hello | None = None
        self.is_done = False
        self._admit = admit
        self._nonce = nonce
        self._secret = secret
        self._peer = peer

    def received(self, frame: bytes) -> bytes:
        """Return the frame to answer with.

        Raises:
            HandshakeRefused: the caller is refused; send it :func:`refusal_frame` and close.
        """
        try:
            if self.hello is None:
                return self._greeted(_hello_decoder.decode(frame))
            return self._proven(self.hello, _proof_decoder.decode(frame))
        except msgspec.DecodeError as error:
            raise HandshakeRefused(self._peer, f"it does not speak this protocol ({error})") from error

    def _greeted(self, hello: Hello) -> bytes:
        if refusal := self._admit(hello):
            raise HandshakeRefused(self._peer, refusal)
        self.hello = hello
        if self._secret is None:
            self.is_done = True
            return _encode(Welcome())
        return _encode(Challenge(self._nonce, _prove(self._secret, "listener", hello, self._nonce)))

    def _proven(self, hello: Hello, answer: Proof) -> bytes:
        assert self._secret is not None
        expected = _prove(self._secret, "caller", hello, self._nonce)
        if not hmac.compare_digest(expected, answer.proof):
            raise HandshakeRefused(self._peer, "the proof of the application's secret is wrong")
        self.is_done = True
        return _encode(Welcome())


def refusal_frame(text: str) -> bytes:
    """Return the frame that tells a caller why it is refused; long texts are cut to fit."""
    return _encode(Refused(text[: HANDSHAKE_FRAME_BYTES_MAX // 4]))
