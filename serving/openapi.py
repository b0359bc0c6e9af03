"""The gateway's API as an OpenAPI document: what it checks itself, and every failure's form."""

from typing import Any

from serving.asked import ENDPOINTS

FAILURES = {
    "400": "The body is not a request.",
    "401": "The API key is missing or wrong.",
    "404": "No such model.",
    "408": "The request did not come in time.",
    "413": "The body is too large.",
    "429": "The key's limit is used up; see Retry-After.",
    "502": "Every worker that was tried failed.",
    "503": "No worker is ready, or all are busy; see Retry-After.",
}
NEEDS = {"chat/completions": "messages", "completions": "prompt", "embeddings": "input"}
SUMMARIES = {
    "chat/completions": "Answer a conversation.",
    "completions": "Go on with a text.",
    "embeddings": "Vectors of texts.",
}


def document(*, with_keys: bool) -> dict[str, Any]:
    """An OpenAPI 3.1 document of a gateway that asks for keys, or of one that does not."""
    paths: dict[str, Any] = {f"/v1/{endpoint}": {"post": _operation(endpoint)} for endpoint in ENDPOINTS}
    paths["/v1/models"] = {"get": _reading("The models that can be asked.", "401")}
    model = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    paths["/v1/models/{model}"] = {"get": {**_reading("One model.", "401", "404"), "parameters": [model]}}
    paths["/health"] = {"get": {**_reading("Whether this gateway takes requests.", "503"), "security": []}}
    security: dict[str, Any] = {"security": [{"key": []}]} if with_keys else {}
    return {
        "openapi": "3.1.0",
        "info": {"title": "vlaunch gateway", "version": "1"},
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": _error()},
        },
        **security,
    }


def _operation(endpoint: str) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if endpoint != "embeddings":
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return {
        "summary": SUMMARIES[endpoint],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _request(endpoint)}}},
        "responses": {"200": {"description": "The answer.", "content": content}, **_failures(*FAILURES)},
    }


def _request(endpoint: str) -> dict[str, Any]:
    """What the gateway checks; engines take more."""
    properties: dict[str, Any] = {
        "model": {"type": "string", "minLength": 1},
        "user": {"type": ["string", "null"]},
    }
    if endpoint == "embeddings":
        properties["input"] = {}
    else:
        positive = {"type": ["integer", "null"], "minimum": 1, "maximum": 2**31}
        properties |= {"stream": {"type": ["boolean", "null"]}, "max_tokens": positive}
    if endpoint == "completions":
        properties["prompt"] = {"anyOf": [{"type": "string"}, {"type": "array"}]}
    if endpoint == "chat/completions":
        message = {
            "type": "object",
            "required": ["role"],
            "properties": {"role": {"type": "string"}, "content": {}},
        }
        properties["messages"] = {"type": "array", "minItems": 1, "items": message}
    return {"type": "object", "required": ["model", NEEDS[endpoint]], "properties": properties}


def _reading(summary: str, *failures: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}}}
    return {
        "summary": summary,
        "responses": {"200": {"description": "It.", "content": content}, **_failures(*failures)},
    }


def _failures(*statuses: str) -> dict[str, Any]:
    schema = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {status: {"description": FAILURES[status], "content": schema} for status in statuses}


def _error() -> dict[str, Any]:
    text = {"type": "string"}
    error = {
        "type": "object",
        "required": ["message", "type", "code"],
        "properties": {"message": text, "type": text, "code": {"type": ["string", "integer", "null"]}},
    }
    return {"type": "object", "required": ["error"], "properties": {"error": error}}
