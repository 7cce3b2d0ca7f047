"""Functions are bound to typenames, and what cannot work is refused when they are."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from statefun_sdk import (
    Context,
    IntType,
    Message,
    StatefulFunctions,
    StringType,
    UnknownFunctionError,
    UserTypeError,
    UserValueError,
    ValueSpec,
    make_json_type,
    simple_type,
)
from statefun_sdk.storage import Storage


def plain(context: Context, message: Message) -> None:
    pass


async def asynchronous(context: Context, message: Message) -> None:
    pass


class Service:
    def method(self, context: Context, message: Message) -> None:
        pass

    async def async_method(self, context: Context, message: Message) -> None:
        pass


class CallableObject:
    def __call__(self, context: Context, message: Message) -> None:
        pass


class AsyncCallableObject:
    async def __call__(self, context: Context, message: Message) -> None:
        pass


def three(dependency: object, context: Context, message: Message) -> None:
    pass


async def async_three(dependency: object, context: Context, message: Message) -> None:
    pass


def wrapped(fun: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(fun)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        fun(*args, **kwargs)

    return wrapper


def test_binding_returns_the_function_unchanged() -> None:
    functions = StatefulFunctions()
    assert functions.bind("t/f")(plain) is plain
    assert functions.for_typename("t/f").fun is plain


def test_a_bound_function_carries_its_declarations() -> None:
    functions = StatefulFunctions()
    specs = [ValueSpec("count", IntType), ValueSpec("name", StringType)]
    functions.bind("t/f", specs=specs, accepts=[IntType, StringType], blocking=True)(plain)
    bound = functions.functions["t/f"]
    assert (bound.typename, bound.specs, bound.accepts) == ("t/f", tuple(specs), (IntType, StringType))
    assert (bound.is_async, bound.blocking) == (False, True)
    assert issubclass(bound.storage_class, Storage)
    assert repr(bound).startswith("BoundFunction('t/f', <function plain")


def test_the_functions_are_a_live_read_only_view() -> None:
    functions = StatefulFunctions()
    view: Any = functions.functions
    functions.register("t/f", plain)
    assert list(view) == ["t/f"]
    with pytest.raises(TypeError):
        view["t/g"] = None


@pytest.mark.parametrize(
    ("fun", "is_async"),
    [
        (plain, False),
        (asynchronous, True),
        (Service().method, False),
        (Service().async_method, True),
        (CallableObject(), False),
        (AsyncCallableObject(), True),
        (functools.partial(three, object()), False),
        (functools.partial(async_three, object()), True),
        (functools.partial(CallableObject()), False),
        (functools.partial(AsyncCallableObject()), True),
        (wrapped(plain), False),
        (lambda context, message: None, False),
        (lambda context, message, *rest, keyword=1, **more: None, False),
    ],
)
def test_whatever_takes_context_and_message_can_be_bound(fun: Callable[..., Any], is_async: bool) -> None:
    functions = StatefulFunctions()
    functions.register("t/f", fun)
    assert functions.for_typename("t/f").is_async is is_async


@pytest.mark.parametrize(
    ("fun", "shown"),
    [
        (lambda: None, "none"),
        (lambda context: None, "context"),
        (lambda context, message, more: None, "context, message, more"),
        (lambda context, message, more=1: None, "context, message, more"),
        (lambda context, message, *, needed: None, r"context, message, \*, needed"),
        (lambda *both: None, "none"),
        (Service.method, "self, context, message"),
    ],
)
def test_other_parameters_are_refused(fun: Callable[..., Any], shown: str) -> None:
    with pytest.raises(UserValueError, match=f"exactly two positional parameters.* it takes: {shown}$"):
        StatefulFunctions().register("t/f", fun)


def test_a_decorator_may_give_a_function_more_than_context_and_message() -> None:
    def with_database(context: Context, message: Message, database: str) -> str:
        return database

    @functools.wraps(with_database)
    async def wrapper(context: Context, message: Message) -> str:
        return with_database(context, message, "db")

    functions = StatefulFunctions()
    functions.register("t/f", wrapper)
    assert functions.for_typename("t/f").fun is wrapper
    assert functions.for_typename("t/f").is_async


def generator(context: Context, message: Message) -> Iterator[None]:
    yield


async def async_generator(context: Context, message: Message) -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize("fun", [generator, async_generator])
def test_generators_are_refused_since_calling_them_runs_nothing(fun: Callable[..., Any]) -> None:
    with pytest.raises(UserValueError, match="remove the yield"):
        StatefulFunctions().register("t/f", fun)


@pytest.mark.parametrize(
    ("fun", "error", "text"),
    [
        (None, UserValueError, "no function was given"),
        (7, UserTypeError, "7 cannot be called"),
        (CallableObject, UserValueError, "is a class; pass an instance"),
        (min, UserTypeError, "parameters of .* are not known"),
    ],
)
def test_what_is_no_function_is_refused(fun: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        StatefulFunctions().register("t/f", fun)


@pytest.mark.parametrize("typename", ["", None])
def test_a_typename_is_needed(typename: Any) -> None:
    with pytest.raises(UserValueError, match="no typename was given"):
        StatefulFunctions().register(typename, plain)


@pytest.mark.parametrize("typename", ["f", "a/b/c", "statefun-ray.reply/f", "~timers/f"])
def test_a_typename_must_be_one_that_can_be_addressed(typename: str) -> None:
    with pytest.raises(UserValueError, match=f"function typename '{typename}'"):
        StatefulFunctions().bind(typename)(plain)


def test_an_async_function_cannot_be_blocking() -> None:
    with pytest.raises(UserValueError, match="async and blocking=True; drop blocking"):
        StatefulFunctions().register("t/f", asynchronous, blocking=True)


def test_a_second_registration_replaces_the_first() -> None:
    functions = StatefulFunctions()
    functions.register("t/f", plain)
    functions.register("t/f", asynchronous)
    assert functions.for_typename("t/f").is_async


def test_a_refused_registration_leaves_the_first() -> None:
    functions = StatefulFunctions()
    functions.register("t/f", plain)
    with pytest.raises(UserValueError):
        functions.register("t/f", plain, [ValueSpec("a", IntType), ValueSpec("a", IntType)])
    assert functions.for_typename("t/f").specs == ()


def test_an_unknown_typename_is_a_key_error_naming_the_known() -> None:
    functions = StatefulFunctions()
    functions.register("t/f", plain)
    with pytest.raises(UnknownFunctionError, match=r"no function is bound to 't/g' \(bound: t/f\)"):
        functions.for_typename("t/g")
    with pytest.raises(KeyError):
        functions.for_typename("t/g")


@pytest.mark.parametrize("typename", ["plain", "a/b/c"])
def test_the_type_of_a_state_needs_a_typename_of_two_parts(typename: str) -> None:
    spec = ValueSpec("a", simple_type(typename, bytes, bytes))
    with pytest.raises(
        UserValueError, match=f"the typename of state 'a' '{typename}' must be 'namespace/name'"
    ):
        StatefulFunctions().register("t/f", plain, [spec])


def test_specs_and_accepts_are_lists_of_the_right_things() -> None:
    functions: Any = StatefulFunctions()
    with pytest.raises(UserTypeError, match="specs must be a list"):
        functions.register("t/f", plain, ValueSpec("a", IntType))
    with pytest.raises(UserTypeError, match="specs must hold ValueSpec objects, not 7"):
        functions.register("t/f", plain, [7])
    with pytest.raises(UserTypeError, match="accepts must be a list"):
        functions.register("t/f", plain, accepts=IntType)
    with pytest.raises(UserTypeError, match="accepts must hold Types such as IntType, not <class 'int'>"):
        functions.register("t/f", plain, accepts=[int])
    with pytest.raises(UserValueError, match="accepts names 't/j' twice"):
        functions.register("t/f", plain, accepts=[make_json_type("t/j"), make_json_type("t/j")])


def test_specs_may_come_from_a_generator() -> None:
    functions = StatefulFunctions()
    functions.register("t/f", plain, (ValueSpec(name, IntType) for name in ("a", "b")))
    assert [spec.name for spec in functions.for_typename("t/f").specs] == ["a", "b"]
