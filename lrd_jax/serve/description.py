"""The API as OpenAPI describes it, from the types that read it."""

from typing import Any

import msgspec

from lrd_jax.serve.bodies import Chat, Text
from lrd_jax.version import __version__

_ASKED = {"/v1/chat/completions": Chat, "/v1/completions": Text}
_TOLD = {
    "/v1/models": "the model, its decoders and lengths",
    "/health": "whether the engine lives",
    "/ready": "whether requests are taken",
    "/version": "of this package and of JAX",
    "/metrics": "for Prometheus",
}
_ERROR = {
    "description": "an error, in one sentence",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
_ERROR_BODY = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def description() -> dict[str, Any]:
    """The document of /openapi.json."""
    references, schemas = msgspec.json.schema_components(_ASKED.values(), ref_template="#/components/schemas/{name}")
    paths: dict[str, Any] = {}
    for path, reference in zip(_ASKED, references, strict=True):
        answer = {"description": "the answer; with stream, server-sent events"}
        content = {"application/json": {"schema": reference}}
        post = {
            "requestBody": {"required": True, "content": content},
            "responses": {"200": answer, "default": _ERROR},
        }
        paths[path] = {"post": post}
    for path, words in _TOLD.items():
        paths[path] = {"get": {"responses": {"200": {"description": words}, "default": {"description": "an error"}}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "lrd-jax", "version": __version__},
        "paths": paths,
        "components": {"schemas": {**schemas, "Error": _ERROR_BODY}},
    }
