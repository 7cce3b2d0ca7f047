"""Stories of the shop, without a runtime."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from examples.shopping_cart.functions import (
    ANSWER,
    CART,
    CART_COMMAND,
    FRAUD_CHECK,
    INVENTORY,
    INVENTORY_COMMAND,
    RECEIPTS,
    RESERVATION_LASTS,
    SPENDING_LIMIT_CENTS,
    functions,
)
from statefun_sdk.testing import FunctionTester
from tests.examples.stage import Stage

SOCKS_CENTS = 700


@pytest.fixture
def shop() -> Stage:
    stage = Stage(functions)
    restock(stage, 50)
    return stage


def restock(shop: Stage, quantity: int) -> None:
    command = {"do": "restock", "quantity": quantity, "cents_each": SOCKS_CENTS}
    shop.tell(INVENTORY, "socks", command, INVENTORY_COMMAND)


def add(shop: Stage, user: str, quantity: int) -> Any:
    command = {"do": "add", "article": "socks", "quantity": quantity}
    return shop.ask(CART, user, command, CART_COMMAND, ANSWER)


def check_out(shop: Stage, user: str) -> Any:
    return shop.ask(CART, user, {"do": "check out"}, CART_COMMAND, ANSWER)


def stock(shop: Stage) -> tuple[int, int, int]:
    state = shop.instance(INVENTORY, "socks").state
    return state["available"] or 0, state["reserved"] or 0, state["sold"] or 0


def test_what_is_added_is_reserved(shop: Stage) -> None:
    assert add(shop, "ada", 3) == {"added": True, "total_cents": 3 * SOCKS_CENTS}
    assert stock(shop) == (47, 3, 0)


def test_checking_out_sells_what_was_reserved(shop: Stage) -> None:
    add(shop, "ada", 3)
    add(shop, "ada", 1)

    assert check_out(shop, "ada") == {"bought": True, "cents": 4 * SOCKS_CENTS}
    assert stock(shop) == (46, 0, 4)
    assert shop.instance(CART, "ada").state["spent_cents"] == 4 * SOCKS_CENTS


def test_every_order_has_one_receipt(shop: Stage) -> None:
    add(shop, "ada", 3)
    check_out(shop, "ada")
    check_out(shop, "ada")

    [receipt] = shop.egress
    assert receipt.typename == RECEIPTS
    assert json.loads(receipt.raw_value() or b"") == {
        "user": "ada",
        "items": [{"article": "socks", "quantity": 3, "cents_each": SOCKS_CENTS}],
        "cents": 3 * SOCKS_CENTS,
    }


def test_nothing_is_sold_twice(shop: Stage) -> None:
    add(shop, "ada", 30)

    assert add(shop, "eve", 30) == {"added": False, "left": 20}
    assert stock(shop) == (20, 30, 0)


def test_a_reservation_expires_and_goes_back_to_the_stock(shop: Stage) -> None:
    add(shop, "ada", 3)

    shop.wait(RESERVATION_LASTS - timedelta(seconds=1))
    assert stock(shop) == (47, 3, 0)

    shop.wait(timedelta(seconds=1))
    assert stock(shop) == (50, 0, 0)
    assert check_out(shop, "ada") == {"bought": False, "because": "the cart is empty"}


def test_checking_out_calls_the_expiry_off(shop: Stage) -> None:
    add(shop, "ada", 3)
    check_out(shop, "ada")

    assert shop.pending_timers == 0
    shop.wait(RESERVATION_LASTS)
    assert stock(shop) == (47, 0, 3)


def test_only_the_reservation_whose_time_is_up_expires(shop: Stage) -> None:
    add(shop, "ada", 3)
    shop.wait(RESERVATION_LASTS / 2)
    add(shop, "ada", 1)
    shop.wait(RESERVATION_LASTS / 2)

    assert stock(shop) == (49, 1, 0)
    assert check_out(shop, "ada") == {"bought": True, "cents": SOCKS_CENTS}


def test_an_order_above_the_limit_is_refused_and_given_back(shop: Stage) -> None:
    restock(shop, 1_000)
    add(shop, "eve", SPENDING_LIMIT_CENTS // SOCKS_CENTS + 1)

    answer = check_out(shop, "eve")

    assert answer["bought"] is False
    assert stock(shop) == (1_050, 0, 0)
    assert shop.pending_timers == 0


def test_many_small_orders_reach_the_limit_as_well(shop: Stage) -> None:
    restock(shop, 1_000)
    order = SPENDING_LIMIT_CENTS // SOCKS_CENTS // 2
    answers = []
    for _ in range(3):
        add(shop, "eve", order)
        answers.append(check_out(shop, "eve")["bought"])

    assert answers == [True, True, False]
    assert stock(shop) == (1_050 - 2 * order, 0, 2 * order)


def test_the_total_spent_is_forgotten_after_a_day_without_orders() -> None:
    [spec] = functions.for_typename(FRAUD_CHECK).specs
    assert spec.after_write
    assert spec.duration == 24 * 60 * 60 * 1000


def test_a_command_that_no_cart_knows_names_those_it_knows() -> None:
    cart = FunctionTester(functions, CART, "ada")
    with pytest.raises(ValueError, match="cannot 'dance'; it knows 'add' and 'check out'"):
        cart.invoke(value={"do": "dance"}, value_type=CART_COMMAND)
