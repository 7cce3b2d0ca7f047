"""``io.statefun.kafka.v1/ingress`` and ``io.statefun.kafka.v1/egress``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, cast

from statefun_ray.module.fields import Field, Section
from statefun_ray.module.model import KafkaEgress, KafkaIngress, KafkaTopic, StartupPosition
from statefun_ray.module.parts import Parts

_SERVERS: Final = "the addresses of Kafka's brokers, such as broker-1:9092,broker-2:9092"
_GROUP: Final = "the name of the consumer group"
_PROPERTIES: Final = "a list of Kafka's own settings, each as '- name: value'"
_LONG_MAX: Final = 2**63 - 1

_STARTS: Final = ("group-offsets", "earliest", "latest", "specific-offsets", "date")
_SEMANTICS: Final = ("none", "at-least-once", "exactly-once")

_DATE: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}) ([+-])([0-9]{2})([0-9]{2})"
)
_DATE_FORM: Final = "a time of the form yyyy-MM-dd HH:mm:ss.SSS Z, such as 2020-02-01 04:15:00.000 +0000"
_OFFSET_HOURS_MAX: Final = 18

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


# --- ingress ------------------------------------------------------------------------------------


def read_kafka_ingress(spec: Field, parts: Parts) -> None:
    """Read one ``io.statefun.kafka.v1/ingress``."""
    section = spec.section(
        "a mapping with id, address, consumerGroupId and topics",
        (
            "id",
            "address",
            "consumerGroupId",
            "topics",
            "startupPosition",
            "autoOffsetResetPosition",
            "properties",
        ),
    )
    id = section.need("id", "the id of this ingress, namespace/name")
    id_text = id.typename()
    parts.claim("ingress", id_text, id)
    where = f"kafka ingress {id_text}"
    parts.places[where, ""] = id.place
    properties = _properties(section, where, parts)
    if "auto.offset.reset" in properties:
        properties.pop("auto.offset.reset")
        section.need("properties", _PROPERTIES).warn(
            "auto.offset.reset", "it has no effect, as in StateFun; set autoOffsetResetPosition"
        )
    _overwrite(section, properties, "address", "bootstrap.servers", _SERVERS, suffices=True)
    _overwrite(section, properties, "consumerGroupId", "group.id", _GROUP, suffices=True)
    reset = section.get("autoOffsetResetPosition")
    topics = _topics(section.need("topics", "a list of topics"), parts)
    parts.kafka_ingresses.append(
        KafkaIngress(
            id=id_text,
            topics=topics,
            startup=_startup(section.get("startupPosition"), {topic.topic for topic in topics}),
            reset="latest"
            if reset is None
            else cast(Literal["earliest", "latest"], reset.choice(("earliest", "latest"), any_case=True)),
            properties=properties,
        )
    )


def _topics(field: Field, parts: Parts) -> tuple[KafkaTopic, ...]:
    expected = "a list of one or more mappings with topic, valueType and targets"
    topics: dict[str, KafkaTopic] = {}
    items = field.items(expected)
    if not items and field.is_list:
        field.error(expected, found="an empty list")
    for item in items:
        section = item.section(
            "a mapping with topic, valueType and targets", ("topic", "valueType", "targets", "deliver")
        )
        name = section.need("topic", "the name of a topic")
        topic = name.text("the name of a topic")
        value_type = section.need("valueType", "the type of its values").text(
            "the type of its values, such as io.statefun.types/string"
        )
        targets = section.need("targets", "a list of function types")
        found = [(target.function_type(), target) for target in targets.items("a list of function types")]
        parts.targets += found
        types = tuple(function_type for function_type, _ in found)
        if targets.is_list and not types:
            targets.warn("no target", "every record of this topic is dropped")
        if topic in topics and topic:
            name.warn(f"the topic {topic!r} again", "the last one counts; remove the others")
        deliver = section.get("deliver")
        topics[topic] = KafkaTopic(
            topic,
            value_type,
            types,
            "value"
            if deliver is None
            else cast(Literal["value", "record"], deliver.choice(("value", "record"))),
        )
    return tuple(topics.values())


def _startup(field: Field | None, topics: set[str]) -> StartupPosition:
    if field is None:
        return StartupPosition()
    expected = "a mapping with type, one of " + ", ".join(_STARTS)
    kind_field = field.entries(expected).get("type")
    kind = "" if kind_field is None else kind_field.choice(_STARTS)
    # After a mistake in the type, the other key may be right for what was meant.
    extra = {"specific-offsets": ("offsets",), "date": ("date",), "": ("offsets", "date")}
    section = field.section(expected, ("type", *extra.get(kind, ())))
    section.need("type", "one of " + ", ".join(_STARTS))
    match kind:
        case "specific-offsets":
            offsets = _offsets(section.need("offsets", "a list of '- topic/partition: offset'"), topics)
            return StartupPosition("specific-offsets", offsets=offsets)
        case "date":
            return StartupPosition("date", date_ms=_date_ms(section.need("date", _DATE_FORM)))
        case "group-offsets" | "earliest":
            return StartupPosition(kind)
        case _:
            return StartupPosition()


def _offsets(field: Field, topics: set[str]) -> tuple[tuple[str, int, int], ...]:
    expected = "a list of one or more '- topic/partition: offset'"
    items = field.items(expected)
    if not items and field.is_list:
        field.error(expected, found="an empty list")
    offsets: dict[tuple[str, int], int] = {}
    for item in items:
        entry = item.single_entry("topic/partition: offset")
        if entry is None:
            continue
        name, value = entry
        topic, slash, partition = name.rpartition("/")
        if not slash or not topic or not re.fullmatch("[0-9]{1,9}", partition):
            value.error("topic/partition with a partition of 0 or more, such as orders/0", found=repr(name))
            continue
        if topic not in topics:
            value.warn(f"an offset of {topic!r}", "it has no effect, since that is none of the topics")
        offsets[topic, int(partition)] = value.integer("an offset of 0 or more", least=0, most=_LONG_MAX)
    return tuple((topic, partition, offset) for (topic, partition), offset in offsets.items())


def _date_ms(field: Field) -> int:
    text = field.text(_DATE_FORM)
    match = _DATE.fullmatch(text)
    if match is not None:
        local, sign, hours, minutes = match.groups()
        shift = timedelta(hours=int(hours), minutes=int(minutes)) * (1 if sign == "+" else -1)
        if int(minutes) < 60 and abs(shift) <= timedelta(hours=_OFFSET_HOURS_MAX):
            try:
                # The offset is taken off afterwards: at the ends of the calendar the UTC time of
                # a valid local one may lie outside of it.
                since = datetime.strptime(local + " +0000", "%Y-%m-%d %H:%M:%S.%f %z") - _EPOCH
            except ValueError:
                pass  # a day or hour that does not exist; said below
            else:
                return (since - shift) // timedelta(milliseconds=1)
    if text:
        field.error(_DATE_FORM)
    return 0


# --- egress -------------------------------------------------------------------------------------


def read_kafka_egress(spec: Field, parts: Parts) -> None:
    """Read one ``io.statefun.kafka.v1/egress``."""
    section = spec.section(
        "a mapping with id and address", ("id", "address", "deliverySemantic", "properties")
    )
    id = section.need("id", "the id of this egress, namespace/name")
    id_text = id.typename()
    parts.claim("egress", id_text, id)
    where = f"kafka egress {id_text}"
    parts.places[where, ""] = id.place
    properties = _properties(section, where, parts)
    # Unlike that of an ingress, StateFun's egress insists on the key.
    _overwrite(section, properties, "address", "bootstrap.servers", _SERVERS, suffices=False)
    semantic, timeout_ms = _semantic(section.get("deliverySemantic"))
    if semantic == "exactly-once":
        properties["transaction.timeout.ms"] = str(timeout_ms)
    parts.kafka_egresses.append(
        KafkaEgress(
            id=id_text,
            semantic=cast(Literal["none", "at-least-once", "exactly-once"], semantic),
            transaction_timeout_ms=timeout_ms,
            properties=properties,
        )
    )


def _semantic(field: Field | None) -> tuple[str, int]:
    """Return the semantic and, for exactly-once, the timeout of a transaction in milliseconds."""
    if field is None:
        return "at-least-once", 0
    expected = "a mapping with type, one of " + ", ".join(_SEMANTICS)
    kind_field = field.entries(expected).get("type")
    # Without a type, or after a mistake in it, the other keys may be right for what was meant.
    kind = "" if kind_field is None else kind_field.choice(_SEMANTICS)
    has_timeout = kind in ("exactly-once", "")
    extra = ("transactionTimeout", "transactionTimeoutMillis") if has_timeout else ()
    section = field.section(expected, ("type", *extra))
    section.need("type", "one of " + ", ".join(_SEMANTICS))
    if kind != "exactly-once":
        return kind, 0
    in_ms = section.get("transactionTimeoutMillis")
    if in_ms is None:
        timeout = section.need("transactionTimeout", "how long a transaction may take, such as 15 min")
        return kind, timeout.duration_ms()
    if section.get("transactionTimeout") is not None:
        in_ms.warn("transactionTimeoutMillis beside transactionTimeout", "it wins; remove one of the two")
    return kind, in_ms.integer(
        "a number of milliseconds of 1 or more; durations go to transactionTimeout", least=1
    )


# --- both ---------------------------------------------------------------------------------------


def _properties(section: Section, where: str, parts: Parts) -> dict[str, str]:
    field = section.get("properties")
    properties: dict[str, str] = {}
    for item in [] if field is None else field.items(_PROPERTIES):
        entry = item.single_entry("'- name: value'")
        if entry is not None:
            name, value = entry
            parts.places[where, name] = value.place
            properties[name] = "" if value.is_empty_text else value.text("a value")
    return properties


def _overwrite(
    section: Section, properties: dict[str, str], key: str, name: str, expected: str, *, suffices: bool
) -> None:
    """Put the setting that has a key of its own among the properties.

    Args:
        section: where ``key`` is looked for.
        properties: to be completed.
        key: in the file.
        name: of the property.
        expected: in words.
        suffices: whether the property alone will do.
    """
    field = section.get(key)
    if field is None:
        if not suffices:
            section.need(key, expected)
        elif name not in properties:
            section.need(key, f"{expected}, here or as {name} in properties")
        return
    value = field.text(expected)
    if properties.get(name, value) != value:
        field.warn(f"{key} beside {name} in properties", f"{key} wins; remove one of the two")
    properties[name] = value
