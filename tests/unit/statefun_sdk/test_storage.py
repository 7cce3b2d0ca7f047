"""Storage reads from tables, buffers writes, and keeps nothing alive."""

from __future__ import annotations

from typing import Any

import pytest

from statefun_sdk import (
    Context,
    IntType,
    Message,
    StatefulFunctions,
    StringType,
    UndecodableValueError,
    UserTypeError,
    UserValueError,
    ValueSpec,
    make_json_type,
    simple_type,
)
from statefun_sdk.codecs import encode_int
from statefun_sdk.storage import Storage, storage_class_for
from statefun_sdk.testing import FunctionTester

JSON = make_json_type("t/json")


def storage_on(tables: list[dict[str, bytes]], id: str = "x") -> Any:
    """A storage with an int, a string and a JSON state, turned to ``id``."""
    specs = [ValueSpec("count", IntType), ValueSpec("name", StringType), ValueSpec("seen", JSON)]
    storage = storage_class_for("t/f", specs)(tables)
    storage._Id = id
    return storage


def empty_tables() -> list[dict[str, bytes]]:
    return [{}, {}, {}]


def test_an_absent_value_is_none() -> None:
    storage = storage_on(empty_tables())
    assert storage.count is None
    assert storage._Writes == {}


def test_a_stored_value_is_decoded() -> None:
    storage = storage_on([{"x": encode_int(5), "y": encode_int(6)}, {}, {}])
    assert storage.count == 5
    storage._Id = "y"
    assert storage.count == 6


def test_a_stored_zero_is_not_absent() -> None:
    assert storage_on([{"x": b""}, {}, {}]).count == 0


def test_a_write_is_read_back_and_leaves_the_table_alone() -> None:
    tables = empty_tables()
    storage = storage_on(tables)
    storage.count = 3
    storage.name = "é"
    assert (storage.count, storage.name) == (3, "é")
    assert storage._Writes == {0: encode_int(3), 1: b"\x0a\x02" + "é".encode()}
    assert tables == empty_tables()


def test_a_counter_counts() -> None:
    storage = storage_on(empty_tables())
    for _ in range(3):
        storage.count = (storage.count or 0) + 1
    assert storage.count == 3


def test_deleting_hides_the_stored_value() -> None:
    storage = storage_on([{"x": encode_int(5)}, {}, {}])
    del storage.count
    assert storage.count is None
    assert storage._Writes == {0: None}


def test_deleting_what_is_absent_is_a_write_too() -> None:
    storage = storage_on(empty_tables())
    del storage.name
    assert storage._Writes == {1: None}


def test_a_value_can_be_written_after_deleting() -> None:
    storage = storage_on(empty_tables())
    del storage.count
    storage.count = 1
    assert storage.count == 1


def test_none_cannot_be_assigned() -> None:
    storage = storage_on(empty_tables())
    with pytest.raises(
        UserValueError, match=r"'t/f' assigned None to state 'count'; use `del context\.storage\.count`"
    ):
        storage.count = None


def test_values_are_encoded_at_once() -> None:
    storage = storage_on(empty_tables())
    with pytest.raises(UserTypeError):
        storage.count = "seven"
    with pytest.raises(TypeError, match="not JSON serializable"):
        storage.seen = object()
    assert storage._Writes == {}


def test_changing_a_read_object_in_place_changes_nothing() -> None:
    storage = storage_on(empty_tables())
    value = {"a": 1}
    storage.seen = value
    value["a"] = 2
    storage.seen["a"] = 3
    assert storage.seen == {"a": 1}
    assert storage.seen is not storage.seen


def test_turning_to_an_instance_keeps_writes_for_a_batch() -> None:
    storage = storage_on(empty_tables())
    storage.count = 3
    storage._Id = "x"
    assert storage.count == 3


def test_tables_may_be_exchanged_below_a_storage() -> None:
    tables = empty_tables()
    storage = storage_on(tables)
    tables[0] = {"x": encode_int(9)}
    assert storage.count == 9


def test_an_undeclared_name_is_an_attribute_error_naming_the_function() -> None:
    storage = storage_on(empty_tables())
    with pytest.raises(AttributeError, match=r"Storage\[t/f\].*cuont"):
        _ = storage.cuont
    with pytest.raises(AttributeError, match=r"Storage\[t/f\].*cuont"):
        storage.cuont = 1
    with pytest.raises(AttributeError):
        del storage.cuont


def test_adding_to_an_absent_value_is_a_type_error() -> None:
    storage = storage_on(empty_tables())
    with pytest.raises(TypeError):
        storage.count += 1


def test_bytes_of_another_type_are_refused_on_reading() -> None:
    storage = storage_on([{"x": b"\x0a\x01a"}, {}, {}])
    with pytest.raises(UndecodableValueError):
        _ = storage.count


def test_an_attribute_error_of_a_deserializer_stays_what_it_is() -> None:
    def broken(data: bytes) -> Any:
        return data.nonsense  # type: ignore[attr-defined]

    specs = [ValueSpec("a", simple_type("t/broken", bytes, broken))]
    storage: Any = storage_class_for("t/f", specs)([{"x": b"1"}])
    storage._Id = "x"
    with pytest.raises(AttributeError, match="nonsense"):
        _ = storage.a


def test_two_states_of_one_name_are_refused() -> None:
    with pytest.raises(UserValueError, match="'t/f' declares state 'a' twice"):
        storage_class_for("t/f", [ValueSpec("a", IntType), ValueSpec("a", StringType)])


def function_that_keeps(name: str) -> StatefulFunctions:
    """A function that does all there is to do with one state."""
    functions = StatefulFunctions()

    @functions.bind("t/f", [ValueSpec(name, IntType)])
    def keep(context: Context, message: Message) -> None:
        assert getattr(context.storage, name) == 4
        setattr(context.storage, name, 5)
        assert getattr(context.storage, name) == 5
        delattr(context.storage, name)
        assert getattr(context.storage, name) is None
        setattr(context.storage, name, 6)

    return functions


NAMES_OF_OTHERS = [
    "_id",
    "_tables",
    "_writes",
    "_begin",
    "_discard",
    "_cells",
    "_typename",
    "storage",
    "batch",
]
NAMES_OF_PYTHON = [
    "__class__",
    "__dict__",
    "__doc__",
    "__hash__",
    "__eq__",
    "__len__",
    "__module__",
    "__call__",
]


@pytest.mark.parametrize("name", NAMES_OF_OTHERS + NAMES_OF_PYTHON)
def test_a_state_may_have_any_name_that_the_official_sdk_takes(name: str) -> None:
    tester = FunctionTester(function_that_keeps(name), "t/f", "x", state={name: 4})
    assert tester.invoke(int_value=1).changes == {name: 6}


@pytest.mark.parametrize(
    "name",
    [
        "__init__",
        "__new__",
        "__slots__",
        "__qualname__",
        "__classcell__",
        "__getattr__",
        "__getattribute__",
        "__setattr__",
        "__delattr__",
    ],
)
def test_names_without_which_there_are_no_objects_are_refused(name: str) -> None:
    with pytest.raises(UserValueError, match=f"state name '{name}' is taken by Python itself"):
        function_that_keeps(name)


def test_no_state_can_be_called_as_the_storage_calls_its_own() -> None:
    for name in Storage.__slots__:
        with pytest.raises(UserValueError, match="must be lower case"):
            ValueSpec(name, IntType)


def test_a_storage_holds_nothing_but_its_slots() -> None:
    storage = storage_on(empty_tables())
    assert isinstance(storage, Storage)
    assert not hasattr(storage, "__dict__")
