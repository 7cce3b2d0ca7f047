"""``StatefulFunctions``: which Python function serves which function typename."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from statefun_sdk.address import check_function_typename, check_qualified
from statefun_sdk.errors import UnknownFunctionError, UserTypeError, UserValueError
from statefun_sdk.specs import ValueSpec
from statefun_sdk.storage import Storage, storage_class_for
from statefun_sdk.types import Type

F = TypeVar("F", bound=Callable[..., Any])

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class BoundFunction:
    """A registered function and all that was declared about it.

    Attributes:
        typename: ``namespace/name``.
        fun: what to call with ``(context, message)``.
        specs: its states, in the order of declaration.
        is_async: ``fun`` returns a coroutine.
        blocking: ``fun`` may block and is to run in a thread of its own.
        accepts: the types of messages it declares; empty = nothing declared.
        waits: it is async or blocking: others can run beside a call of it.
        storage_class: made for ``specs``, see ``statefun_sdk.storage``.
    """

    __slots__ = ("accepts", "blocking", "fun", "is_async", "specs", "storage_class", "typename", "waits")

    def __init__(
        self,
        typename: str,
        fun: Callable[..., Any],
        specs: tuple[ValueSpec, ...],
        is_async: bool,
        blocking: bool,
        accepts: tuple[Type[Any], ...],
        storage_class: type[Storage],
    ) -> None:
        self.typename = typename
        self.fun = fun
        self.specs = specs
        self.is_async = is_async
        self.blocking = blocking
        self.waits = is_async or blocking
        self.accepts = accepts
        self.storage_class = storage_class

    def __repr__(self) -> str:
        return f"BoundFunction({self.typename!r}, {self.fun!r})"


class StatefulFunctions:
    """A collection of functions, each under its typename."""

    def __init__(self) -> None:
        self._functions: dict[str, BoundFunction] = {}

    @property
    def functions(self) -> Mapping[str, BoundFunction]:
        """The registered functions by typename; a live, read-only view."""
        return MappingProxyType(self._functions)

    def bind(
        self,
        typename: str,
        specs: Iterable[ValueSpec] | None = None,
        *,
        accepts: Iterable[Type[Any]] | None = None,
        blocking: bool = False,
    ) -> Callable[[F], F]:
        """Decorate a function to serve ``typename``; takes what ``register`` takes."""

        def decorate(fun: F) -> F:
            self.register(typename, fun, specs, accepts=accepts, blocking=blocking)
            return fun

        return decorate

    def register(
        self,
        typename: str,
        fun: Callable[..., Any],
        specs: Iterable[ValueSpec] | None = None,
        *,
        accepts: Iterable[Type[Any]] | None = None,
        blocking: bool = False,
    ) -> None:
        """Let ``fun`` serve ``typename``, replacing what did so before.

        Args:
            typename: ``namespace/name``.
            fun: takes two positional arguments, context and message. A plain or async
                function, a bound method, or an object that can be called.
            specs: the states it keeps.
            accepts: the types of messages it takes. With them an ingress can refuse others
                and knows the type of a JSON body. Messages between functions are not checked.
            blocking: it may block for long and is to run in a thread.

        Raises:
            UserValueError: the function or typename is missing, the typename is not
                ``namespace/name``, the parameters do not fit, the type of a state is not
                named ``namespace/name``, two specs or accepted types share a name, or an
                async function is declared blocking.
            UserTypeError: an argument is of the wrong Python type.
        """
        if fun is None:
            raise UserValueError(f"no function was given for {typename!r}")
        if not typename:
            raise UserValueError(f"no typename was given for {fun!r}; write it as 'namespace/name'")
        check_function_typename(typename)
        is_async = _check_callable(typename, fun)
        if is_async and blocking:
            raise UserValueError(
                f"function {typename!r} is async and blocking=True; drop blocking, or make it a plain def"
            )
        all_specs = _checked_specs(typename, specs)
        self._functions[typename] = BoundFunction(
            typename,
            fun,
            all_specs,
            is_async,
            bool(blocking),
            _checked_accepts(typename, accepts),
            storage_class_for(typename, all_specs),
        )

    def for_typename(self, typename: str) -> BoundFunction:
        """Return the function bound to ``typename``.

        Raises:
            UnknownFunctionError: there is none; it is a ``KeyError``.
        """
        try:
            return self._functions[typename]
        except KeyError:
            raise UnknownFunctionError(typename, sorted(self._functions)) from None


def _check_callable(typename: str, fun: object) -> bool:
    """Check that ``fun`` takes context and message, and return whether it is async."""
    if not callable(fun):
        raise UserTypeError(f"function {typename!r}: {fun!r} cannot be called")
    if isinstance(fun, type):
        raise UserValueError(f"function {typename!r}: {fun!r} is a class; pass an instance or a method of it")
    called = _what_runs(fun)
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        raise UserValueError(
            f"function {typename!r}: {fun!r} is a generator, so calling it would not run it; remove the yield"
        )
    # What a decorator returned counts by its own parameters: it may give its function more than two. If they
    # do not say, as (*args, **kwargs), it counts by those of the function that it wraps.
    shown = _unfitting(typename, fun, is_wrapped_followed=False)
    if shown:
        shown = _unfitting(typename, fun, is_wrapped_followed=True)
    if shown:
        raise UserValueError(
            f"function {typename!r}: {fun!r} must take exactly two positional parameters, "
            f"(context, message); it takes: {shown}"
        )
    return inspect.iscoroutinefunction(called)


def _unfitting(typename: str, fun: Callable[..., Any], *, is_wrapped_followed: bool) -> str:
    """Return the parameters of ``fun`` as text; nothing if they are context and message."""
    try:
        signature = inspect.signature(fun, follow_wrapped=is_wrapped_followed)
    except ValueError:
        raise UserTypeError(
            f"function {typename!r}: the parameters of {fun!r} are not known; wrap it in a def"
        ) from None
    parameters = signature.parameters.values()
    positional = [parameter.name for parameter in parameters if parameter.kind in _POSITIONAL]
    required = [
        parameter.name
        for parameter in parameters
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.default is inspect.Parameter.empty
    ]
    if len(positional) == 2 and not required:
        return ""
    return ", ".join(positional + [f"*, {name}" for name in required]) or "none"


def _what_runs(fun: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function behind partial objects and objects that can be called."""
    while isinstance(fun, functools.partial):
        fun = fun.func
    if inspect.isroutine(fun):
        return fun
    call: Callable[..., Any] = type(fun).__call__
    return call


def _checked_specs(typename: str, specs: Iterable[ValueSpec] | None) -> tuple[ValueSpec, ...]:
    if isinstance(specs, ValueSpec):
        raise UserTypeError(f"function {typename!r}: specs must be a list; write specs=[{specs.name}_spec]")
    checked = tuple(specs or ())
    for spec in checked:
        if not isinstance(spec, ValueSpec):
            raise UserTypeError(f"function {typename!r}: specs must hold ValueSpec objects, not {spec!r}")
        check_qualified(spec.type.typename, f"function {typename!r}: the typename of state {spec.name!r}")
    return checked


def _checked_accepts(typename: str, accepts: Iterable[Type[Any]] | None) -> tuple[Type[Any], ...]:
    if isinstance(accepts, Type):
        raise UserTypeError(f"function {typename!r}: accepts must be a list; write accepts=[{accepts!r}]")
    checked = tuple(accepts or ())
    seen: set[str] = set()
    for tpe in checked:
        if not isinstance(tpe, Type):
            raise UserTypeError(
                f"function {typename!r}: accepts must hold Types such as IntType, not {tpe!r}"
            )
        if tpe.typename in seen:
            raise UserValueError(f"function {typename!r}: accepts names {tpe.typename!r} twice")
        seen.add(tpe.typename)
    return checked
