"""Kafka ingresses and egresses: sections 3.8 and 3.9 of StateFun's behaviour."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statefun_ray.module.model import KafkaEgress, KafkaIngress, KafkaTopic, StartupPosition
from tests.unit.statefun_ray.module.reading import (
    document,
    error_of,
    errors_of,
    module_of,
    reading_of,
    warned_module,
)

INGRESS = "io.statefun.kafka.v1/ingress"
EGRESS = "io.statefun.kafka.v1/egress"

TOPICS = "topics: [{topic: orders, valueType: shop/Order, targets: [shop/cart]}]"


def ingress(
    *lines: str, base: str = "id: shop/orders\naddress: k:9092\nconsumerGroupId: g\n" + TOPICS
) -> str:
    """An ingress; the further lines start in line 7."""
    return document(INGRESS, "\n".join([base, *lines]))


def egress(*lines: str, base: str = "id: shop/receipts\naddress: k:9092") -> str:
    """An egress; the further lines start in line 5."""
    return document(EGRESS, "\n".join([base, *lines]))


def the_ingress(text: str) -> KafkaIngress:
    (found,) = module_of(text).kafka_ingresses
    return found


def the_egress(text: str) -> KafkaEgress:
    (found,) = module_of(text).kafka_egresses
    return found


_CALENDAR_MS = (datetime(9999, 12, 31, tzinfo=UTC) - datetime(1, 1, 1, tzinfo=UTC)) // timedelta(
    milliseconds=1
)


# --- ingress ------------------------------------------------------------------------------------


def test_an_ingress_starts_at_the_latest_unless_told_otherwise() -> None:
    assert the_ingress(ingress()) == KafkaIngress(
        id="shop/orders",
        topics=(KafkaTopic("orders", "shop/Order", ("shop/cart",)),),
        startup=StartupPosition("latest"),
        reset="latest",
        properties={"bootstrap.servers": "k:9092", "group.id": "g"},
    )


def test_targets_keep_their_order_and_value_types_are_not_looked_at() -> None:
    found = the_ingress(
        ingress(
            base="id: a/b\naddress: k\nconsumerGroupId: g\ntopics:\n"
            "- {topic: 1, valueType: anything goes, targets: [b/b, a/a, b/b]}\n"
            "- {topic: two, valueType: x/y, targets: [c/c]}"
        )
    )
    assert found.topics == (
        KafkaTopic("1", "anything goes", ("b/b", "a/a", "b/b")),
        KafkaTopic("two", "x/y", ("c/c",)),
    )


@pytest.mark.parametrize("deliver", ["value", "record"])
def test_a_topic_may_say_what_its_targets_are_given(deliver: str) -> None:
    topics = f"[{{topic: t, valueType: x/1, targets: [a/a], deliver: {deliver}}}]"
    found = the_ingress(ingress(base=f"id: a/b\naddress: k\nconsumerGroupId: g\ntopics: {topics}"))
    assert found.topics == (KafkaTopic("t", "x/1", ("a/a",), deliver),)  # type: ignore[arg-type]


def test_what_cannot_be_delivered_is_refused() -> None:
    topics = "[{topic: t, valueType: x/1, targets: [a/a], deliver: records}]"
    key, _, text = error_of(ingress(base=f"id: a/b\naddress: k\nconsumerGroupId: g\ntopics: {topics}"))
    assert key == "spec.topics[0].deliver"
    assert "one of value, record" in text
    assert "did you mean record?" in text


def test_of_a_topic_listed_twice_the_last_counts() -> None:
    module, (warning,) = warned_module(
        ingress(
            base="id: a/b\naddress: k\nconsumerGroupId: g\ntopics:\n"
            "- {topic: t, valueType: x/1, targets: [a/a]}\n- {topic: t, valueType: x/2, targets: [b/b]}"
        )
    )
    assert module.kafka_ingresses[0].topics == (KafkaTopic("t", "x/2", ("b/b",)),)
    assert warning.startswith("spec.topics[1].topic: found the topic 't' again")


def test_a_topic_without_targets_is_read_and_dropped_with_a_warning() -> None:
    _, (warning,) = warned_module(
        ingress(
            base="id: a/b\naddress: k\nconsumerGroupId: g\ntopics: [{topic: t, valueType: x/1, targets: []}]"
        )
    )
    assert "every record of this topic is dropped" in warning


@pytest.mark.parametrize(
    ("topics", "keys"),
    [
        ("topics: []", ["spec.topics"]),
        ("topics: {topic: t}", ["spec.topics"]),
        ("topics: t", ["spec.topics"]),
        ("topics:", ["spec.topics"]),
        ("", ["spec.topics"]),
        ("topics: [t]", ["spec.topics[0]"]),
        ("topics: [{}]", ["spec.topics[0].topic", "spec.topics[0].valueType", "spec.topics[0].targets"]),
        ("topics: [{topic: t, valueType: v, targets: a/b}]", ["spec.topics[0].targets"]),
        (
            "topics: [{topic: t, valueType: v, targets: [a, b/c, d/]}]",
            [f"spec.topics[0].targets[{i}]" for i in (0, 2)],
        ),
        (
            "topics: [{topic: t, valueType: v, targets: [~timers/f, io.statefun-ray/dead-letters, a/b]}]",
            [f"spec.topics[0].targets[{i}]" for i in (0, 1)],
        ),
        ("topics: [{topic: [t], valueType: v, targets: [a/b]}]", ["spec.topics[0].topic"]),
    ],
)
def test_topics_are_a_list_of_what_is_needed(topics: str, keys: list[str]) -> None:
    found = errors_of(ingress(base=f"id: a/b\naddress: k\nconsumerGroupId: g\n{topics}"))
    assert [key for key, _, _ in found] == keys


@pytest.mark.parametrize(("key", "name"), [("address", "bootstrap.servers"), ("consumerGroupId", "group.id")])
def test_address_and_group_may_come_from_the_properties(key: str, name: str) -> None:
    lines = {"id": "a/b", "address": "k", "consumerGroupId": "g"}
    del lines[key]
    base = "\n".join(f"{k}: {v}" for k, v in lines.items()) + "\n" + TOPICS
    found_key, line, text = error_of(ingress(base=base))
    assert (found_key, line) == (f"spec.{key}", 2)
    assert f"or as {name} in properties" in text
    assert the_ingress(ingress("properties:", f"- {name}: x", base=base)).properties[name] == "x"
    # A key with nothing behind it gives nothing either.
    assert error_of(ingress(f"{key}:", base=base))[0] == f"spec.{key}"


def test_keys_win_over_properties() -> None:
    module, warnings = warned_module(
        ingress("properties: [{bootstrap.servers: other}, {group.id: g}, {x.y: 5}, {empty: ''}]")
    )
    assert module.kafka_ingresses[0].properties == {
        "bootstrap.servers": "k:9092",
        "group.id": "g",
        "x.y": "5",
        "empty": "",
    }
    assert [warning.partition(":")[0] for warning in warnings] == ["spec.address"]
    assert "address wins" in warnings[0]


def test_auto_offset_reset_has_no_effect_as_a_property() -> None:
    module, (warning,) = warned_module(ingress("properties: [{auto.offset.reset: earliest}]"))
    (found,) = module.kafka_ingresses
    assert found.reset == "latest"
    assert "auto.offset.reset" not in found.properties
    assert "set autoOffsetResetPosition" in warning


@pytest.mark.parametrize(
    ("written", "reset"), [("earliest", "earliest"), ("LATEST", "latest"), ("Earliest", "earliest")]
)
def test_the_reset_position_may_be_of_any_case(written: str, reset: str) -> None:
    assert the_ingress(ingress(f"autoOffsetResetPosition: {written}")).reset == reset
    assert error_of(ingress("autoOffsetResetPosition: none"))[0] == "spec.autoOffsetResetPosition"


@pytest.mark.parametrize(
    ("properties", "key"),
    [
        ("{a: b}", "spec.properties"),
        ("a", "spec.properties"),
        ("[a]", "spec.properties[0]"),
        ("[{}]", "spec.properties[0]"),
        ("[{a: [b]}]", "spec.properties[0].a"),
        ("[{a: }]", "spec.properties[0].a"),
    ],
)
def test_properties_are_a_list_of_one_entry_mappings(properties: str, key: str) -> None:
    assert error_of(ingress(f"properties: {properties}"))[0] == key


def test_only_the_first_entry_of_a_property_is_used() -> None:
    module, (warning,) = warned_module(ingress("properties:", "- a: 1", "  b: 2"))
    assert "b" not in module.kafka_ingresses[0].properties
    assert "'b' are ignored" in warning


# --- where to start -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["group-offsets", "earliest", "latest"])
def test_plain_startup_positions(kind: str) -> None:
    assert the_ingress(ingress(f"startupPosition: {{type: {kind}}}")).startup.kind == kind


@pytest.mark.parametrize("kind", ["Earliest", "group_offsets", "''", "[a]"])
def test_startup_positions_are_case_sensitive(kind: str) -> None:
    assert error_of(ingress(f"startupPosition: {{type: {kind}}}"))[0] == "spec.startupPosition.type"


@pytest.mark.parametrize("position", ["{}", "earliest", "{date: x}"])
def test_a_startup_position_has_a_type(position: str) -> None:
    key, _, _ = error_of(ingress(f"startupPosition: {position}"))
    assert key in ("spec.startupPosition", "spec.startupPosition.type")


def test_a_mistaken_type_does_not_make_the_other_key_unknown() -> None:
    _, _, text = error_of(ingress("startupPosition: {type: specific-offset, offsets: []}"))
    assert "did you mean specific-offsets?" in text


def test_specific_offsets() -> None:
    startup = the_ingress(
        ingress(
            "startupPosition: {type: specific-offsets, offsets: [{orders/0: 91}, {orders/1: '11'}, {orders/0: 92}]}"
        )
    ).startup
    assert startup == StartupPosition("specific-offsets", offsets=(("orders", 0, 92), ("orders", 1, 11)))


@pytest.mark.parametrize(
    "offsets",
    ["[]", "{orders/0: 1}", "[{orders: 1}]", "[{orders/-1: 1}]", "[{orders/x: 1}]", "[{/0: 1}]", "[{orders/0: x}]",
     "[{orders/0: -1}]", "[{orders/0: 9223372036854775808}]", "[5]", "[{}]"],
)  # fmt: skip
def test_other_offsets_are_refused(offsets: str) -> None:
    key, _, _ = error_of(ingress(f"startupPosition: {{type: specific-offsets, offsets: {offsets}}}"))
    assert key.startswith("spec.startupPosition.offsets")


def test_offsets_are_needed_and_of_the_topics() -> None:
    assert error_of(ingress("startupPosition: {type: specific-offsets}"))[0] == "spec.startupPosition.offsets"
    _, (warning,) = warned_module(
        ingress("startupPosition: {type: specific-offsets, offsets: [{other/0: 1}]}")
    )
    assert "none of the topics" in warning


@pytest.mark.parametrize(
    ("date", "ms"),
    [
        ("1970-01-01 00:00:00.000 +0000", 0),
        ("1970-01-01 00:00:01.234 -0000", 1_234),
        ("1970-01-01 02:30:00.000 +0230", 0),
        ("1969-12-31 19:00:00.001 -0500", 1),
        ("2020-02-29 04:15:00.000 +0000", 1_582_949_700_000),
        ("0001-01-01 00:00:00.000 +1800", -62_135_661_600_000),
    ],
)
def test_a_date_is_a_moment(date: str, ms: int) -> None:
    startup = the_ingress(ingress(f"startupPosition: {{type: date, date: '{date}'}}")).startup
    assert startup == StartupPosition("date", date_ms=ms)


@pytest.mark.parametrize(
    "date",
    [
        "2020-02-01 04:15:00.00 Z",  # as printed in StateFun's documentation
        "2020-02-01 04:15:00.000 Z",
        "2020-02-01 04:15:00.00 +0000",
        "2020-02-01 04:15:00 +0000",
        "2020-02-01T04:15:00.000 +0000",
        "2020-02-01 04:15:00.000 +00:00",
        "2020-02-01 04:15:00.000",
        "2020-02-30 04:15:00.000 +0000",
        "2020-13-01 04:15:00.000 +0000",
        "2020-02-01 24:15:00.000 +0000",
        "2020-02-01 04:15:00.000 +1801",
        "2020-02-01 04:15:00.000 +0060",
        "yesterday",
    ],
)
def test_other_dates_are_refused(date: str) -> None:
    key, line, text = error_of(ingress(f"startupPosition: {{type: date, date: '{date}'}}"))
    assert (key, line) == ("spec.startupPosition.date", 7)
    assert "2020-02-01 04:15:00.000 +0000" in text


@given(
    # Two days inside of the calendar, so that the UTC time of each lies in it.
    st.integers(min_value=2 * 86_400_000, max_value=_CALENDAR_MS - 2 * 86_400_000),
    st.integers(min_value=-18 * 60, max_value=18 * 60),
)
def test_any_date_is_the_moment_it_says(since_year_1_ms: int, offset_min: int) -> None:
    utc = datetime(1, 1, 1, tzinfo=UTC) + timedelta(milliseconds=since_year_1_ms)
    local = utc.astimezone(timezone(timedelta(minutes=offset_min)))
    sign, size = ("-" if offset_min < 0 else "+"), abs(offset_min)
    text = f"{local.year:04}-{local:%m-%d %H:%M:%S}.{local.microsecond // 1000:03} {sign}{size // 60:02}{size % 60:02}"
    startup = the_ingress(ingress(f"startupPosition: {{type: date, date: '{text}'}}")).startup
    assert startup.date_ms == (utc - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


# --- egress -------------------------------------------------------------------------------------


def test_an_egress_delivers_at_least_once_unless_told_otherwise() -> None:
    assert the_egress(egress()) == KafkaEgress(
        id="shop/receipts",
        semantic="at-least-once",
        transaction_timeout_ms=0,
        properties={"bootstrap.servers": "k:9092"},
    )


@pytest.mark.parametrize("kind", ["none", "at-least-once"])
def test_plain_semantics(kind: str) -> None:
    assert the_egress(egress(f"deliverySemantic: {{type: {kind}}}")).semantic == kind


def test_exactly_once_has_a_timeout_that_the_producer_is_told() -> None:
    found = the_egress(
        egress(
            "deliverySemantic: {type: exactly-once, transactionTimeout: 15min}",
            "properties: [{transaction.timeout.ms: 5}, {acks: all}]",
        )
    )
    assert (found.semantic, found.transaction_timeout_ms) == ("exactly-once", 900_000)
    assert found.properties == {
        "bootstrap.servers": "k:9092",
        "transaction.timeout.ms": "900000",
        "acks": "all",
    }


def test_the_deprecated_timeout_wins_over_the_new_one() -> None:
    assert (
        the_egress(
            egress("deliverySemantic: {type: exactly-once, transactionTimeoutMillis: 100000}")
        ).transaction_timeout_ms
        == 100_000
    )
    module, (warning,) = warned_module(
        egress("deliverySemantic: {type: exactly-once, transactionTimeoutMillis: 7, transactionTimeout: 1h}")
    )
    assert module.kafka_egresses[0].transaction_timeout_ms == 7
    assert "it wins" in warning


@pytest.mark.parametrize(
    ("semantic", "key"),
    [
        ("{type: exactly-once}", "transactionTimeout"),
        ("{type: exactly-once, transactionTimeout: 0}", "transactionTimeout"),
        ("{type: exactly-once, transactionTimeout: soon}", "transactionTimeout"),
        ("{type: exactly-once, transactionTimeoutMillis: 15min}", "transactionTimeoutMillis"),
        ("{type: exactly-once, transactionTimeoutMillis: 0}", "transactionTimeoutMillis"),
        ("{type: exactly-onse, transactionTimeout: 1h}", "type"),
        ("{type: Exactly-Once}", "type"),
        ("{}", "type"),
        ("{transactionTimeout: 1h}", "type"),
    ],
)
def test_other_semantics_are_refused(semantic: str, key: str) -> None:
    found, line, _ = error_of(egress(f"deliverySemantic: {semantic}"))
    assert (found, line) == (f"spec.deliverySemantic.{key}", 5)


def test_a_semantic_is_a_mapping() -> None:
    assert error_of(egress("deliverySemantic: exactly-once"))[0] == "spec.deliverySemantic"


@pytest.mark.parametrize("key", ["transactionTimeout: 15min", "transactionTimeoutMillis: 900000"])
def test_without_a_type_nothing_is_said_of_the_timeout(key: str) -> None:
    reading = reading_of(egress(f"deliverySemantic: {{{key}}}"))
    assert [problem.place.key for problem in reading.problems] == ["spec.deliverySemantic.type"]


def test_a_timeout_without_exactly_once_has_no_effect() -> None:
    _, (warning,) = warned_module(egress("deliverySemantic: {type: none, transactionTimeout: 1h}"))
    assert "unknown key 'transactionTimeout'; it is ignored" in warning


@pytest.mark.parametrize("more", [(), ("properties: [{bootstrap.servers: k}]",)])
def test_an_egress_needs_the_key_address(more: tuple[str, ...]) -> None:
    assert error_of(egress(*more, base="id: a/b"))[0] == "spec.address"


@pytest.mark.parametrize("id", ["receipts", "a/b/c", "a/", "[a/b]"])
def test_ids_are_typenames(id: str) -> None:
    key, _, text = error_of(egress(base=f"id: {id}\naddress: k"))
    assert key == "spec.id"
    assert "exactly one slash" in text
