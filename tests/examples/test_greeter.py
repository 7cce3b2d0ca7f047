"""The README's first example."""

from __future__ import annotations

from examples.greeter.main import functions
from statefun_sdk import SdkAddress
from statefun_sdk.testing import FunctionTester

CLIENT = SdkAddress.of("test/client", "somebody")


def test_first_visit_is_number_one() -> None:
    ada = FunctionTester(functions, "example/greeter", "ada")

    effects = ada.invoke(str_value="hi", caller=CLIENT)

    assert effects.message_to("test/client").as_string() == "Hello ada, this is visit number 1."


def test_visits_are_counted_on() -> None:
    ada = FunctionTester(functions, "example/greeter", "ada", state={"visits": 41})

    ada.invoke(str_value="hi")

    assert ada.state == {"visits": 42}


def test_nobody_is_answered_when_nobody_waits() -> None:
    ada = FunctionTester(functions, "example/greeter", "ada")

    assert ada.invoke(str_value="hi").messages == []
