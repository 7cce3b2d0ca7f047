"""What ``protocol.py`` makes at run time, for type checkers."""

from collections.abc import Iterable
from typing import ClassVar

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import Message

__all__ = [
    "Address",
    "FromFunction",
    "KafkaProducerRecord",
    "KinesisEgressRecord",
    "ToFunction",
    "TypedValue",
]

class Address(Message):
    namespace: str
    type: str
    id: str
    def __init__(
        self,
        *,
        namespace: str | None = ...,
        type: str | None = ...,
        id: str | None = ...,
    ) -> None: ...

class TypedValue(Message):
    typename: str
    has_value: bool
    value: bytes
    def __init__(
        self,
        *,
        typename: str | None = ...,
        has_value: bool | None = ...,
        value: bytes | None = ...,
    ) -> None: ...

class ToFunction(Message):
    class PersistedValue(Message):
        state_name: str
        state_value: TypedValue
        def __init__(
            self,
            *,
            state_name: str | None = ...,
            state_value: TypedValue | None = ...,
        ) -> None: ...

    class Invocation(Message):
        caller: Address
        argument: TypedValue
        def __init__(
            self,
            *,
            caller: Address | None = ...,
            argument: TypedValue | None = ...,
        ) -> None: ...

    class InvocationBatchRequest(Message):
        target: Address
        state: RepeatedCompositeFieldContainer[ToFunction.PersistedValue]
        invocations: RepeatedCompositeFieldContainer[ToFunction.Invocation]
        def __init__(
            self,
            *,
            target: Address | None = ...,
            state: Iterable[ToFunction.PersistedValue] | None = ...,
            invocations: Iterable[ToFunction.Invocation] | None = ...,
        ) -> None: ...

    invocation: ToFunction.InvocationBatchRequest
    def __init__(
        self,
        *,
        invocation: ToFunction.InvocationBatchRequest | None = ...,
    ) -> None: ...

class FromFunction(Message):
    class PersistedValueMutation(Message):
        class MutationType(int, metaclass=EnumTypeWrapper):
            DELETE: ClassVar[FromFunction.PersistedValueMutation.MutationType]
            MODIFY: ClassVar[FromFunction.PersistedValueMutation.MutationType]

        DELETE: FromFunction.PersistedValueMutation.MutationType
        MODIFY: FromFunction.PersistedValueMutation.MutationType
        mutation_type: FromFunction.PersistedValueMutation.MutationType
        state_name: str
        state_value: TypedValue
        def __init__(
            self,
            *,
            mutation_type: FromFunction.PersistedValueMutation.MutationType | None = ...,
            state_name: str | None = ...,
            state_value: TypedValue | None = ...,
        ) -> None: ...

    class Invocation(Message):
        target: Address
        argument: TypedValue
        def __init__(
            self,
            *,
            target: Address | None = ...,
            argument: TypedValue | None = ...,
        ) -> None: ...

    class DelayedInvocation(Message):
        is_cancellation_request: bool
        cancellation_token: str
        delay_in_ms: int
        target: Address
        argument: TypedValue
        def __init__(
            self,
            *,
            is_cancellation_request: bool | None = ...,
            cancellation_token: str | None = ...,
            delay_in_ms: int | None = ...,
            target: Address | None = ...,
            argument: TypedValue | None = ...,
        ) -> None: ...

    class EgressMessage(Message):
        egress_namespace: str
        egress_type: str
        argument: TypedValue
        def __init__(
            self,
            *,
            egress_namespace: str | None = ...,
            egress_type: str | None = ...,
            argument: TypedValue | None = ...,
        ) -> None: ...

    class InvocationResponse(Message):
        state_mutations: RepeatedCompositeFieldContainer[FromFunction.PersistedValueMutation]
        outgoing_messages: RepeatedCompositeFieldContainer[FromFunction.Invocation]
        delayed_invocations: RepeatedCompositeFieldContainer[FromFunction.DelayedInvocation]
        outgoing_egresses: RepeatedCompositeFieldContainer[FromFunction.EgressMessage]
        def __init__(
            self,
            *,
            state_mutations: Iterable[FromFunction.PersistedValueMutation] | None = ...,
            outgoing_messages: Iterable[FromFunction.Invocation] | None = ...,
            delayed_invocations: Iterable[FromFunction.DelayedInvocation] | None = ...,
            outgoing_egresses: Iterable[FromFunction.EgressMessage] | None = ...,
        ) -> None: ...

    class ExpirationSpec(Message):
        class ExpireMode(int, metaclass=EnumTypeWrapper):
            NONE: ClassVar[FromFunction.ExpirationSpec.ExpireMode]
            AFTER_WRITE: ClassVar[FromFunction.ExpirationSpec.ExpireMode]
            AFTER_INVOKE: ClassVar[FromFunction.ExpirationSpec.ExpireMode]

        NONE: FromFunction.ExpirationSpec.ExpireMode
        AFTER_WRITE: FromFunction.ExpirationSpec.ExpireMode
        AFTER_INVOKE: FromFunction.ExpirationSpec.ExpireMode
        mode: FromFunction.ExpirationSpec.ExpireMode
        expire_after_millis: int
        def __init__(
            self,
            *,
            mode: FromFunction.ExpirationSpec.ExpireMode | None = ...,
            expire_after_millis: int | None = ...,
        ) -> None: ...

    class PersistedValueSpec(Message):
        state_name: str
        expiration_spec: FromFunction.ExpirationSpec
        type_typename: str
        def __init__(
            self,
            *,
            state_name: str | None = ...,
            expiration_spec: FromFunction.ExpirationSpec | None = ...,
            type_typename: str | None = ...,
        ) -> None: ...

    class IncompleteInvocationContext(Message):
        missing_values: RepeatedCompositeFieldContainer[FromFunction.PersistedValueSpec]
        def __init__(
            self,
            *,
            missing_values: Iterable[FromFunction.PersistedValueSpec] | None = ...,
        ) -> None: ...

    invocation_result: FromFunction.InvocationResponse
    incomplete_invocation_context: FromFunction.IncompleteInvocationContext
    def __init__(
        self,
        *,
        invocation_result: FromFunction.InvocationResponse | None = ...,
        incomplete_invocation_context: FromFunction.IncompleteInvocationContext | None = ...,
    ) -> None: ...

class KafkaProducerRecord(Message):
    class Header(Message):
        name: str
        value: bytes
        def __init__(
            self,
            *,
            name: str | None = ...,
            value: bytes | None = ...,
        ) -> None: ...

    key: str
    value_bytes: bytes
    topic: str
    headers: RepeatedCompositeFieldContainer[KafkaProducerRecord.Header]
    is_tombstone: bool
    def __init__(
        self,
        *,
        key: str | None = ...,
        value_bytes: bytes | None = ...,
        topic: str | None = ...,
        headers: Iterable[KafkaProducerRecord.Header] | None = ...,
        is_tombstone: bool | None = ...,
    ) -> None: ...

class KinesisEgressRecord(Message):
    partition_key: str
    value_bytes: bytes
    stream: str
    explicit_hash_key: str
    def __init__(
        self,
        *,
        partition_key: str | None = ...,
        value_bytes: bytes | None = ...,
        stream: str | None = ...,
        explicit_hash_key: str | None = ...,
    ) -> None: ...
