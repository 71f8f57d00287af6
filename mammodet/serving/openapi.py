"""The REST interface in OpenAPI 3.1, made of the records that it answers."""

from typing import Any

from pydantic import TypeAdapter

from mammodet.serving.uploads import MOST_UPLOAD_BYTES, Fault, ImageAnswer
from mammodet.version import VERSION

_REFUSALS = {
    401: "the token is missing or wrong",
    403: "another host or site was named",
    413: f"larger than {MOST_UPLOAD_BYTES} bytes",
    415: "neither DICOM nor PNG",
    422: "cannot be read, or is no mammogram",
    503: "too many uploads wait; Retry-After says when to come back",
    504: "no answer in time",
}


def openapi() -> dict[str, Any]:
    """The whole description."""
    references, definitions = TypeAdapter.json_schemas(
        [(name, "serialization", TypeAdapter(kind)) for name, kind in (("answer", ImageAnswer), ("fault", Fault))],
        ref_template="#/components/schemas/{model}",
    )
    answer, fault = (
        {"application/json": {"schema": references[name, "serialization"]}} for name in ("answer", "fault")
    )
    binary = {"type": "string", "format": "binary"}
    form = {"type": "object", "properties": {"file": binary}, "required": ["file"]}
    operation = {
        "summary": "Find lesions in one image",
        "description": "Scores and detections in pixels of the image file. One image is predicted at a time.",
        "operationId": "predict",
        "requestBody": {
            "required": True,
            "content": {
                "application/dicom": {"schema": binary},
                "image/png": {"schema": binary},
                "multipart/form-data": {"schema": form},
            },
        },
        "responses": {
            "200": {"description": "what the model says of the image", "content": answer},
            **{str(code): {"description": text, "content": fault} for code, text in _REFUSALS.items()},
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "mammodet", "version": VERSION, "description": "Research only: no medical device."},
        "security": [{"bearer": []}, {"query": []}],
        "paths": {"/v1/predict": {"post": operation}},
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "query": {"type": "apiKey", "in": "query", "name": "token"},
            },
        },
    }


__all__ = ["openapi"]
