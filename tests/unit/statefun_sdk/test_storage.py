"""Storage reads from tables, buffers writes, and keeps nothing alive."""

from __future__ import annotations

from typing import Any

import pytest

from statefun_sdk import (
    IntType,
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

JSON = make_json_type("t/json")


def storage_on(tables: list[dict[str, bytes]], id: str = "x") -> Any:
    """A storage with an int, a string and a JSON state, turned to ``id``."""
    specs = [ValueSpec("count", IntType), ValueSpec("name", StringType), ValueSpec("seen", JSON)]
    storage = storage_class_for("t/f", specs)(tables)
    storage._begin(id)
    return storage


def empty_tables() -> list[dict[str, bytes]]:
    return [{}, {}, {}]


def test_an_absent_value_is_none() -> None:
    storage = storage_on(empty_tables())
    assert storage.count is None
    assert storage._writes == {}


def test_a_stored_value_is_decoded() -> None:
    storage = storage_on([{"x": encode_int(5), "y": encode_int(6)}, {}, {}])
    assert storage.count == 5
    storage._begin("y")
    assert storage.count == 6


def test_a_stored_zero_is_not_absent() -> None:
    assert storage_on([{"x": b""}, {}, {}]).count == 0


def test_a_write_is_read_back_and_leaves_the_table_alone() -> None:
    tables = empty_tables()
    storage = storage_on(tables)
    storage.count = 3
    storage.name = "é"
    assert (storage.count, storage.name) == (3, "é")
    assert storage._writes == {0: encode_int(3), 1: b"\x0a\x02" + "é".encode()}
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
    assert storage._writes == {0: None}


def test_deleting_what_is_absent_is_a_write_too() -> None:
    storage = storage_on(empty_tables())
    del storage.name
    assert storage._writes == {1: None}


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
    assert storage._writes == {}


def test_changing_a_read_object_in_place_changes_nothing() -> None:
    storage = storage_on(empty_tables())
    value = {"a": 1}
    storage.seen = value
    value["a"] = 2
    storage.seen["a"] = 3
    assert storage.seen == {"a": 1}
    assert storage.seen is not storage.seen


def test_discarding_forgets_writes_but_not_a_dict_taken_before() -> None:
    storage = storage_on(empty_tables())
    storage.count = 3
    taken = storage._writes
    storage._discard()
    assert storage.count is None
    assert storage._writes == {}
    assert taken == {0: encode_int(3)}


def test_turning_to_an_instance_keeps_writes_for_a_batch() -> None:
    storage = storage_on(empty_tables())
    storage.count = 3
    storage._begin("x")
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
    storage._begin("x")
    with pytest.raises(AttributeError, match="nonsense"):
        _ = storage.a


def test_two_states_of_one_name_are_refused() -> None:
    with pytest.raises(UserValueError, match="'t/f' declares state 'a' twice"):
        storage_class_for("t/f", [ValueSpec("a", IntType), ValueSpec("a", StringType)])


@pytest.mark.parametrize("name", ["_writes", "_tables", "_id", "_begin", "_discard", "__class__", "__init__"])
def test_names_of_the_storage_itself_are_refused(name: str) -> None:
    functions = StatefulFunctions()
    with pytest.raises(UserValueError, match=f"state name '{name}' is taken by the storage itself"):
        functions.register("t/f", lambda context, message: None, [ValueSpec(name, IntType)])


def test_a_storage_holds_nothing_but_its_slots() -> None:
    storage = storage_on(empty_tables())
    assert isinstance(storage, Storage)
    assert not hasattr(storage, "__dict__")
