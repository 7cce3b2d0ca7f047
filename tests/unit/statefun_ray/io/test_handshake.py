from __future__ import annotations

import pickle

import pytest

from statefun_ray.io.handshake import (
    CallerHandshake,
    HandshakeRefused,
    Hello,
    ListenerHandshake,
    generation_key,
    refusal_frame,
    refusal_of,
)

HELLO = Hello(app="shop", generation=7, role="channel", source=0, target=1)


def admit_channel(hello: Hello) -> str:
    return refusal_of(hello, app="shop", generation=7, roles=("channel",), target=1)


def shake(caller: CallerHandshake, listener: ListenerHandshake) -> None:
    frame: bytes | None = caller.hello_frame
    while frame is not None:
        frame = caller.received(listener.received(frame))


def parties(
    *, caller_secret: bytes | None = None, listener_secret: bytes | None = None, hello: Hello = HELLO
) -> tuple[CallerHandshake, ListenerHandshake]:
    return (
        CallerHandshake(hello, nonce=b"c" * 16, secret=caller_secret, peer="listener:1"),
        ListenerHandshake(admit_channel, nonce=b"l" * 16, secret=listener_secret, peer="caller:2"),
    )


def test_both_sides_agree_without_a_secret() -> None:
    caller, listener = parties()

    shake(caller, listener)

    assert caller.is_done
    assert listener.is_done
    assert listener.hello is not None
    assert (listener.hello.source, listener.hello.target) == (0, 1)


def test_both_sides_prove_a_shared_secret() -> None:
    caller, listener = parties(caller_secret=b"s", listener_secret=b"s")

    shake(caller, listener)

    assert caller.is_done
    assert listener.is_done


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"app": "bank"}, "this is application 'shop', the caller belongs to 'bank'"),
        ({"generation": 6}, "this is generation 7, the caller belongs to generation 6"),
        ({"role": "control"}, "no 'control' connections here"),
        ({"target": 2}, "this is worker 1, the caller asks for worker 2"),
        ({"target": -1}, "the caller asks for the coordinator"),
    ],
)
def test_a_caller_of_the_wrong_identity_is_refused_with_the_reason(
    changes: dict[str, object], text: str
) -> None:
    fields: dict[str, object] = {"app": "shop", "generation": 7, "role": "channel", "source": 0, "target": 1}
    caller, listener = parties(hello=Hello(**{**fields, **changes}))  # type: ignore[arg-type]

    with pytest.raises(HandshakeRefused, match=text):
        listener.received(caller.hello_frame)


def test_a_listener_proves_itself_before_the_caller_does() -> None:
    caller, listener = parties(caller_secret=b"mine", listener_secret=b"theirs")

    with pytest.raises(HandshakeRefused, match="proved another secret"):
        shake(caller, listener)
    assert not listener.is_done


def test_a_caller_with_a_secret_does_not_talk_to_a_listener_without() -> None:
    caller, listener = parties(caller_secret=b"s")

    with pytest.raises(HandshakeRefused, match="did not prove"):
        shake(caller, listener)


def test_a_caller_without_the_secret_says_that_it_is_asked_for() -> None:
    caller, listener = parties(listener_secret=b"s")

    with pytest.raises(HandshakeRefused, match="none is configured here"):
        shake(caller, listener)
    assert not listener.is_done


def test_a_proof_for_another_nonce_is_refused() -> None:
    caller, listener = parties(caller_secret=b"s", listener_secret=b"s")
    answer = caller.received(listener.received(caller.hello_frame))
    assert answer is not None
    other = ListenerHandshake(admit_channel, nonce=b"x" * 16, secret=b"s", peer="caller:2")
    other.received(caller.hello_frame)

    with pytest.raises(HandshakeRefused, match="proof of the application's secret is wrong"):
        other.received(answer)


def test_generations_have_different_keys() -> None:
    assert generation_key(b"s", "shop", 1) != generation_key(b"s", "shop", 2)
    assert generation_key(b"s", "shop", 1) != generation_key(b"s", "bank", 1)


@pytest.mark.parametrize("frame", [b"", b"GET / HTTP/1.1", b"\xc1"])
def test_another_protocol_is_named_as_such(frame: bytes) -> None:
    caller, listener = parties()

    with pytest.raises(HandshakeRefused, match="does not speak this protocol"):
        listener.received(frame)
    with pytest.raises(HandshakeRefused, match="does not speak this protocol"):
        caller.received(frame)


def test_the_refusal_text_reaches_the_caller() -> None:
    caller, _ = parties()

    with pytest.raises(HandshakeRefused, match="listener:1 refused: try again later"):
        caller.received(refusal_frame("try again later"))


def test_a_refusal_survives_pickling() -> None:
    error = HandshakeRefused("peer:1", "wrong generation")

    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301
