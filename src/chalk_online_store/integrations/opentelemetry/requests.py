"""What a span may say of a request and of its answer: names and counts, never keys or values.

Names are those of OpenTelemetry's semantic conventions for database clients (stable since 1.33)
and, where they begin with `aws.dynamodb`, of those for DynamoDB.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple, TypeAlias

import msgspec

from chalk_online_store.dynamodb import messages as dynamodb
from chalk_online_store.dynamodb.failures import failure
from chalk_online_store.embedded import requests as embedded
from chalk_online_store.errors import RequestError
from chalk_online_store.valkey import commands as valkey
from chalk_online_store.valkey.resp import Command

Attributes: TypeAlias = dict[str, Any]

DYNAMODB, REDIS, SQLITE = "aws.dynamodb", "redis", "sqlite"
"""Systems. Of Valkey, the conventions' package knows the protocol alone, which is Redis's."""

SYSTEM = "db.system.name"
OPERATION = "db.operation.name"
COLLECTION = "db.collection.name"
BATCH_SIZE = "db.operation.batch.size"
STATUS_CODE = "db.response.status_code"
ERROR_TYPE = "error.type"
REQUEST_ID = "aws.request_id"
TABLES = "aws.dynamodb.table_names"
CAPACITY = "aws.dynamodb.consumed_capacity"


class Described(NamedTuple):
    """A request: the engine's name, the operation's, what is asked, and more of a span's."""

    system: str
    operation: str
    collection: str
    more: Attributes


class _Body(msgspec.Struct):
    """What is of interest in the body of any request to DynamoDB."""

    TableName: str = ""
    RequestItems: dict[str, _Keys | list[msgspec.Raw]] = {}
    TransactItems: list[dict[str, _Action]] = []


class _Action(msgspec.Struct):
    """One of a transaction."""

    TableName: str = ""


class _Keys(msgspec.Struct):
    Keys: list[msgspec.Raw] = []


_body = msgspec.json.Decoder(_Body)
_UNITS = re.compile(rb'"CapacityUnits"\s*:\s*([0-9.eE+-]+)')
_CONSUMED = b'"ConsumedCapacity"'
"""In a string of JSON quotes have a backslash before them: so this is a name."""
_VALUE = re.compile(rb"\s*:\s*(?:\[[^]]*|\{[^}]*)")
"""What follows it. In totals nothing is nested, and names of tables have no brackets."""


def describe(request: Any) -> Described | None:
    """A request of any engine; None for what is none of an engine, such as a spool's."""
    if isinstance(request, dynamodb.Request):
        return _of_dynamodb(request)
    if isinstance(request, valkey.Request):
        return _of_valkey(request)
    if isinstance(request, embedded.Request):
        return Described(SQLITE, type(request).__name__, "items", {})
    return None


def _of_dynamodb(request: dynamodb.Request) -> Described:
    body = _body.decode(request.body)
    acted_on = [action.TableName for item in body.TransactItems for action in item.values()]
    table = [*body.RequestItems, *acted_on, body.TableName][0]
    items = body.RequestItems.get(table, [])
    count = len(items.Keys if isinstance(items, _Keys) else items) or len(acted_on)
    more: Attributes = {TABLES: [table]} if table else {}
    if count > 1:  # As the conventions have it: no batch of one.
        more[BATCH_SIZE] = count
    return Described(DYNAMODB, request.operation, table, more)


def _of_valkey(request: valkey.Request) -> Described:
    names = [_name(command) for command in request.commands]
    if len(names) == 1:
        return Described(REDIS, names[0], "", {})
    same = f" {names[0]}" if len({*names}) == 1 else ""
    return Described(REDIS, f"PIPELINE{same}", "", {BATCH_SIZE: len(names)})


def _name(command: Command) -> str:
    name = command[0]
    return name.decode() if isinstance(name, bytes) else str(name)


def tell(request: Any, answer: Any) -> tuple[Attributes, str]:
    """What a span says of an answer, and the class of the error that it is; "" for none."""
    if isinstance(request, dynamodb.Request):
        return _tell_of_dynamodb(answer)
    if isinstance(request, valkey.Request):
        # A script that is unknown is sent again with its text: as usual on a new server.
        errors = [each for each in answer if isinstance(each, RequestError)]
        failed = [type(e).__name__ for e in errors if not isinstance(e, valkey.ScriptUnknown)]
        return {}, failed[0] if failed else ""
    return {}, ""


def _tell_of_dynamodb(answer: dynamodb.Response) -> tuple[Attributes, str]:
    if answer.status != 200:
        kind = type(failure(answer, "")).__name__
        said = {STATUS_CODE: str(answer.status)}
        if request_id := answer.headers.get("x-amzn-requestid"):
            said[REQUEST_ID] = request_id
        return said, kind
    # To decode the whole answer once more, or look through it, would cost as much as the read.
    start = answer.body.rfind(_CONSUMED)
    found = _VALUE.match(answer.body, start + len(_CONSUMED)) if start >= 0 else None
    units = _UNITS.findall(found[0]) if found else []
    if not units:
        return {}, ""
    return {CAPACITY: [json.dumps({"CapacityUnits": float(each)}) for each in units]}, ""
