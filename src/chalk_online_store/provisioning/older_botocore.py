"""Vector indexes for a botocore before 1.43.64, whose model does not have them.

aioboto3 and other packages hold botocore at older versions. The API is JSON: what the model lacks
is put into the request's body, and taken out of the response's, by botocore's own events.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_MEMBERS = ("VectorIndexes", "VectorIndexUpdates")
_HANDED_ON = "chalk_online_store.vector_indexes"


def teach_vector_indexes(client: Any) -> None:
    """Have a client of DynamoDB send and return vector indexes, which an older botocore drops.

    Has no effect on a botocore that knows them.
    """
    shape = client.meta.service_model.operation_model("CreateTable").input_shape
    if _MEMBERS[0] in shape.members:
        return
    events = client.meta.events
    for operation in ("CreateTable", "UpdateTable"):
        events.register(f"provide-client-params.dynamodb.{operation}", _take_out)
        events.register(f"before-call.dynamodb.{operation}", _put_in)
    for operation in ("CreateTable", "UpdateTable", "DescribeTable"):
        events.register(f"after-call.dynamodb.{operation}", _read)


def _take_out(params: Mapping[str, Any], context: dict[str, Any], **_: Any) -> dict[str, Any]:
    context[_HANDED_ON] = {name: params[name] for name in _MEMBERS if name in params}
    return {name: value for name, value in params.items() if name not in _MEMBERS}


def _put_in(params: dict[str, Any], context: Mapping[str, Any], **_: Any) -> None:
    if members := context.get(_HANDED_ON):
        body = json.loads(params["body"])
        params["body"] = json.dumps(body | members).encode()


def _read(http_response: Any, parsed: dict[str, Any], **_: Any) -> None:
    if http_response.status_code != 200:
        return
    body = json.loads(http_response.content)
    for name in ("Table", "TableDescription"):
        found = body.get(name, {}).get("VectorIndexes")
        if found is not None and name in parsed:
            parsed[name]["VectorIndexes"] = found
