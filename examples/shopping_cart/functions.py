"""A shop: carts, an inventory and a fraud check, three functions that only send messages.

- ``shop/cart`` (id: the user) asks the inventory to reserve what is added, holds what was
  reserved, and checks out when the fraud check agrees;
- ``shop/inventory`` (id: the article) owns the stock; nothing is ever sold twice because
  every article is one instance, and instances handle one message at a time;
- ``shop/fraud-check`` (id: the user) refuses to let one user spend too much in one day.

A reservation that is not bought in time goes back to the stock: when it is made, the cart
sends itself a delayed message, which the check-out cancels. No timer of our own, no sweep,
and nothing is lost if everything crashes in between.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypedDict, cast

from statefun_ray import (
    Context,
    IntType,
    LongType,
    Message,
    StatefulFunctions,
    ValueSpec,
    egress_message_builder,
    make_json_type,
    message_builder,
)

CART = "shop/cart"
INVENTORY = "shop/inventory"
FRAUD_CHECK = "shop/fraud-check"

RECEIPTS = "shop/receipts"  # an egress: each receipt leaves exactly once

RESERVATION_LASTS = timedelta(minutes=10)
SPENDING_LIMIT_CENTS = 100_000  # in one day, per user

CART_COMMAND = make_json_type("shop.types/cart-command")
INVENTORY_COMMAND = make_json_type("shop.types/inventory-command")
ORDER = make_json_type("shop.types/order")
ANSWER = make_json_type("shop.types/answer")
RESERVATIONS = make_json_type("shop.types/reservations")
RECEIPT = make_json_type("shop.types/receipt")

functions = StatefulFunctions()


class Reservation(TypedDict):
    """Stock that one cart holds."""

    article: str
    quantity: int
    cents_each: int


# -- cart -------------------------------------------------------------------------------


@functions.bind(
    CART,
    specs=[
        # number of the reservation, as text -> Reservation
        ValueSpec("reservations", RESERVATIONS),
        ValueSpec("last_reservation", IntType),
        ValueSpec("orders", IntType),
        ValueSpec("spent_cents", LongType),
    ],
    accepts=[CART_COMMAND],
)
def cart(context: Context, message: Message) -> None:
    """Handle one command of a user, or one answer of the other functions."""
    command = cast(dict[str, Any], message.as_type(CART_COMMAND))
    match command["do"]:
        case "add":
            ask_for_reservation(context, command)
        case "check out":
            ask_for_approval(context)
        case "reserved":
            hold(context, command)
        case "out of stock":
            answer(context, command["reply_to"], {"added": False, "left": command["left"]})
        case "expired":
            give_back(context, command["reservation"])
        case "approved":
            buy(context, command)
        case "refused":
            refuse(context, command)
        case unknown:
            raise ValueError(f"a cart cannot {unknown!r}; it knows 'add' and 'check out'")


def ask_for_reservation(context: Context, command: dict[str, Any]) -> None:
    """Ask the article's inventory; it answers with 'reserved' or 'out of stock'."""
    number = (context.storage.last_reservation or 0) + 1
    context.storage.last_reservation = number
    tell_inventory(
        context,
        command["article"],
        {
            "do": "reserve",
            "reservation": str(number),
            "quantity": command["quantity"],
            "reply_to": waiting_caller(context),
        },
    )


def hold(context: Context, command: dict[str, Any]) -> None:
    """Put what was reserved into the cart, for a while."""
    number = command["reservation"]
    reservations = held(context)
    reservations[number] = Reservation(
        article=command["article"], quantity=command["quantity"], cents_each=command["cents_each"]
    )
    context.storage.reservations = reservations
    context.send_after(
        RESERVATION_LASTS,
        message_builder(
            CART,
            context.address.id,
            value={"do": "expired", "reservation": number},
            value_type=CART_COMMAND,
        ),
        expiry_token(number),
    )
    answer(context, command["reply_to"], {"added": True, "total_cents": total_cents(reservations)})


def give_back(context: Context, number: str) -> None:
    """Return one reservation to the stock, unless it is gone already."""
    reservations = held(context)
    reservation = reservations.pop(number, None)
    if reservation is None:
        return
    context.storage.reservations = reservations
    tell_inventory(context, reservation["article"], {"do": "release", "quantity": reservation["quantity"]})


def ask_for_approval(context: Context) -> None:
    """Ask the fraud check, naming what exactly is to be bought.

    Reservations made or expired while it thinks are not part of this order.
    """
    reservations = held(context)
    reply_to = waiting_caller(context)
    if not reservations:
        answer(context, reply_to, {"bought": False, "because": "the cart is empty"})
        return
    order = {"cents": total_cents(reservations), "items": sorted(reservations), "reply_to": reply_to}
    context.send(message_builder(FRAUD_CHECK, context.address.id, value=order, value_type=ORDER))


def buy(context: Context, order: dict[str, Any]) -> None:
    """Sell what was approved and is still held, and call off its expiry."""
    reservations = held(context)
    bought = {number: reservations.pop(number) for number in order["items"] if number in reservations}
    for number, reservation in bought.items():
        context.cancel_delayed_message(expiry_token(number))
        tell_inventory(context, reservation["article"], {"do": "sell", "quantity": reservation["quantity"]})
    if not bought:
        answer(context, order["reply_to"], {"bought": False, "because": "the reservations are gone"})
        return
    cents = total_cents(bought)
    context.storage.reservations = reservations
    context.storage.orders = (context.storage.orders or 0) + 1
    context.storage.spent_cents = (context.storage.spent_cents or 0) + cents
    receipt = {"user": context.address.id, "items": list(bought.values()), "cents": cents}
    context.send_egress(egress_message_builder(RECEIPTS, receipt, RECEIPT))
    answer(context, order["reply_to"], {"bought": True, "cents": cents})


def refuse(context: Context, order: dict[str, Any]) -> None:
    """Give everything of a refused order back to the stock."""
    for number in order["items"]:
        context.cancel_delayed_message(expiry_token(number))
        give_back(context, number)
    answer(context, order["reply_to"], {"bought": False, "because": order["because"]})


# -- inventory --------------------------------------------------------------------------


@functions.bind(
    INVENTORY,
    specs=[
        ValueSpec("available", IntType),
        ValueSpec("reserved", IntType),
        ValueSpec("sold", IntType),
        ValueSpec("cents_each", IntType),
    ],
    accepts=[INVENTORY_COMMAND],
)
def inventory(context: Context, message: Message) -> None:
    """Move stock between available, reserved and sold; the sum changes by 'restock' only."""
    command = cast(dict[str, Any], message.as_type(INVENTORY_COMMAND))
    stock, quantity = context.storage, command["quantity"]
    match command["do"]:
        case "restock":
            stock.available = (stock.available or 0) + quantity
            stock.cents_each = command["cents_each"]
        case "reserve":
            reserve(context, command)
        case "release":
            stock.reserved -= quantity
            stock.available = (stock.available or 0) + quantity
        case "sell":
            stock.reserved -= quantity
            stock.sold = (stock.sold or 0) + quantity
        case unknown:
            raise ValueError(f"an inventory cannot {unknown!r}; it knows 'restock'")


def reserve(context: Context, command: dict[str, Any]) -> None:
    """Set stock aside for the cart that asks, if there is enough."""
    stock, quantity = context.storage, command["quantity"]
    available = stock.available or 0
    reply = {"reservation": command["reservation"], "reply_to": command["reply_to"]}
    if quantity > available:
        reply |= {"do": "out of stock", "left": available}
    else:
        stock.available = available - quantity
        stock.reserved = (stock.reserved or 0) + quantity
        reply |= {
            "do": "reserved",
            "article": context.address.id,
            "quantity": quantity,
            "cents_each": stock.cents_each,
        }
    asking = context.caller
    if asking is None:
        raise ValueError("'reserve' comes from a cart; send 'add' to a cart instead")
    context.send(message_builder(asking.typename, asking.id, value=reply, value_type=CART_COMMAND))


# -- fraud check ------------------------------------------------------------------------


@functions.bind(
    FRAUD_CHECK,
    specs=[ValueSpec("approved_cents", LongType, expire_after_write=timedelta(days=1))],
    accepts=[ORDER],
)
def fraud_check(context: Context, message: Message) -> None:
    """Approve an order unless the user has spent too much lately."""
    order = cast(dict[str, Any], message.as_type(ORDER))
    spent = (context.storage.approved_cents or 0) + order["cents"]
    if spent > SPENDING_LIMIT_CENTS:
        verdict = {"do": "refused", "because": "this is more than one user may spend in a day"}
    else:
        context.storage.approved_cents = spent
        verdict = {"do": "approved"}
    context.send(message_builder(CART, context.address.id, value=order | verdict, value_type=CART_COMMAND))


# -- helpers ----------------------------------------------------------------------------


def held(context: Context) -> dict[str, Reservation]:
    """What the cart holds, by number of the reservation."""
    return context.storage.reservations or {}


def total_cents(reservations: dict[str, Reservation]) -> int:
    """The price of some reservations."""
    return sum(item["quantity"] * item["cents_each"] for item in reservations.values())


def expiry_token(number: str) -> str:
    """Names the delayed message that ends one reservation; tokens belong to the user's id."""
    return f"reservation-{number}"


def tell_inventory(context: Context, article: str, command: dict[str, Any]) -> None:
    """Send a command to the stock of one article."""
    context.send(message_builder(INVENTORY, article, value=command, value_type=INVENTORY_COMMAND))


def waiting_caller(context: Context) -> list[str] | None:
    """The address of whoever waits for an answer, in a form that fits into a message."""
    caller = context.caller
    return None if caller is None else [caller.typename, caller.id]


def answer(context: Context, reply_to: list[str] | None, value: dict[str, Any]) -> None:
    """Answer whoever asked first, several messages ago; nobody may be waiting."""
    if reply_to is not None:
        typename, id = reply_to
        context.send(message_builder(typename, id, value=value, value_type=ANSWER))
