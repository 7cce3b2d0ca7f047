"""What /openapi.json says of the two hot routes, which FastAPI does not see."""

from __future__ import annotations

from typing import Any, Final


def _problem(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


SCHEMAS: Final[dict[str, Any]] = {
    "Problem": {
        "type": "object",
        "description": "A refusal (RFC 9457): what was found, what was expected, what to do.",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
        },
    },
    "Accepted": {
        "type": "object",
        "description": "The events are durable and will be applied exactly once.",
        "required": ["accepted", "log", "sequence"],
        "properties": {
            "accepted": {"type": "integer", "description": "How many events."},
            "log": {"type": "string", "description": "The ingress log they are in."},
            "sequence": {
                "type": ["integer", "null"],
                "description": "Place of the first in the log; null for a repeated request too old to be remembered.",
            },
            "reply": {
                "type": "null",
                "description": "Only with Prefer: wait: no reply came in time. It is dropped if it comes later.",
            },
            "detail": {"type": "string", "description": "With reply: why there is none."},
        },
    },
    "Event": {
        "type": "object",
        "required": ["target", "id", "value"],
        "additionalProperties": False,
        "properties": {
            "target": {"type": "string", "description": "namespace/type of the function"},
            "id": {"type": "string", "minLength": 1},
            "type": {
                "type": "string",
                "description": "Typename of the value; may be left out where it is clear.",
            },
            "value": {"description": "JSON for JSON and built-in types, base64 for others."},
        },
    },
}

_PRODUCER_PARAMETERS: Final[list[dict[str, Any]]] = [
    {
        "name": "Producer-Id",
        "in": "header",
        "schema": {"type": "string", "maxLength": 128},
        "description": "Who sends. With Producer-Sequence, a repeated request is accepted once.",
    },
    {
        "name": "Producer-Sequence",
        "in": "header",
        "schema": {"type": "integer", "minimum": 0},
        "description": "The producer's number of this request, counted from 0 or 1: the same when a request "
        "is repeated. Numbers may come in any order, at most 1,024 ahead of the first that is missing; none may be "
        "left out for good.",
    },
]

_REFUSALS: Final[dict[str, Any]] = {
    "400": _problem("The request cannot be understood."),
    "404": _problem("There is no such function."),
    "409": _problem("An earlier Producer-Sequence is missing."),
    "413": _problem("The body is too large."),
    "415": _problem("The function does not accept this type."),
    "422": _problem("The value does not fit its type, or the Producer-Sequence was used for other events."),
    "429": _problem("The workers or the disk cannot keep up, see Retry-After."),
    "503": _problem("Nothing can be accepted now, see Retry-After."),
}

_ACCEPTED: Final[dict[str, Any]] = {
    "description": "Durable. With Prefer: wait, the reply did not come in time, which the body says.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Accepted"}}},
}


def _path_parameter(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": {"type": "string"},
        "description": description,
    }


def _send_event(operation_id: str) -> dict[str, Any]:
    return {
        "operationId": operation_id,
        "summary": "Send one event to a function instance",
        "tags": ["events"],
        "parameters": [
            _path_parameter("namespace", "First half of the function's name."),
            _path_parameter("type", "Second half of the function's name."),
            _path_parameter("id", "Which instance; percent-encoded, any characters."),
            *_PRODUCER_PARAMETERS,
            {
                "name": "Prefer",
                "in": "header",
                "schema": {"type": "string", "example": "wait=5"},
                "description": "wait=SECONDS: answer with the function's committed reply.",
            },
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {}},
                "text/plain": {"schema": {"type": "string"}},
                "application/vnd.{typename}": {"schema": {"type": "string", "format": "binary"}},
            },
        },
        "responses": {
            "200": {
                "description": "The function's reply, committed: text for the string type, JSON for other built-in and "
                "JSON types, else the value's bytes as application/vnd.{typename}.",
            },
            "202": _ACCEPTED,
            **_REFUSALS,
        },
    }


HOT_PATHS: Final[dict[str, Any]] = {
    "/v1/functions/{namespace}/{type}/{id}": {
        "put": _send_event("put_event"),
        "post": _send_event("post_event"),
    },
    "/v1/events": {
        "post": {
            "operationId": "post_events",
            "summary": "Send many events, all or nothing",
            "tags": ["events"],
            "parameters": _PRODUCER_PARAMETERS,
            "requestBody": {
                "required": True,
                "description": "One JSON object per line.",
                "content": {"application/x-ndjson": {"schema": {"$ref": "#/components/schemas/Event"}}},
            },
            "responses": {"202": _ACCEPTED, **_REFUSALS},
        }
    },
}
