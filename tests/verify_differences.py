"""What `verify` sees otherwise on the engines of the tests than on DynamoDB, by check.

A difference that is not on the list fails the test, and so does one on the list that an engine no
longer has.
"""

from __future__ import annotations

OPERATORS = {"operators of a condition": "300 operators accepted, 301 accepted"}

DYNOXIDE = {
    **OPERATORS,
    # It counts the attributes that are returned; AWS counts the item.
    "units of GetItem, projected": (
        "4 KB: 0.5, 4 KB + 1 B: 0.5, nothing: 0.5, "
        "4 KB consistent: 1, 4 KB + 1 B consistent: 1, nothing consistent: 1 RCU"
    ),
}

_MINISTACK_GET = (
    "4 KB: 0.5, 4 KB + 1 B: 0.5, nothing: 0.5, "
    "4 KB consistent: 1, 4 KB + 1 B consistent: 1, nothing consistent: 1 RCU"
)

MINISTACK = {
    **OPERATORS,
    # It takes features with the ids S and N for two types of one value.
    "attribute names of one character": "RequestRefused (ValidationException)",
    # It does not limit a response to 16 MB.
    "unprocessed keys of a 16 MB read": "no keys unprocessed, all 43 read in the end",
    # It counts writes by their size, reads by their number.
    "units of GetItem": _MINISTACK_GET,
    "units of GetItem, projected": _MINISTACK_GET,
    "units of BatchGetItem": (
        "4 KB and 4 KB + 1 B and nothing: 0, 4 KB and 4 KB + 1 B and nothing consistent: 0 RCU"
    ),
    "units of Query": "2 KB and 2 KB: 1, 2 KB and 2 KB + 1 B: 1 RCU",
}

_MOTO_GET = (
    "4 KB: 0.5, 4 KB + 1 B: 0.5, nothing: 0.5, "
    "4 KB consistent: 0.5, 4 KB + 1 B consistent: 0.5, nothing consistent: 0.5 RCU"
)

MOTO = {
    **OPERATORS,
    # It cannot parse one function within another.
    "nested if_not_exists": "RequestRefused (ValidationException)",
    # It does not limit expressions, the puts of a batch, or numbers; its items are smaller.
    "size of an UpdateExpression": "4,096 bytes accepted, 4,097 accepted",
    "size of a ConditionExpression": "4,096 bytes accepted, 4,097 accepted",
    "size of a ProjectionExpression": "4,096 bytes accepted, 4,097 accepted",
    "items of a BatchWriteItem": "25 accepted, 26 accepted, a key twice refused",
    "numbers out of range": "accepted: 39 digits, 1E126",
    "item of 400 KB by PutItem": (
        "409,600 bytes refused as too large, 409,601 refused as too large"
    ),
    "item of 400 KB by UpdateItem": (
        "409,600 bytes refused as too large, 409,601 refused as too large"
    ),
    # Its figures do not depend on sizes.
    "units of PutItem": "1 KB: 1, 1 KB + 1 B: 1 WCU",
    "units of UpdateItem": (
        "1 KB: 0.5, 1 KB + 1 B: 0.5, 1 KB to 1 KB: 0.5, 1 KB to 1 KB + 1 B: 0.5, "
        "3 KB to 1 KB: 0.5, 1 KB to 3 KB: 0.5 WCU"
    ),
    "units of DeleteItem": "1 KB: 1, 1 KB + 1 B: 1, nothing: 1 WCU",
    "units of BatchWriteItem": "puts: 1, deletes: 1 WCU",
    "units of TransactWriteItems": "puts: 0, deletes: 0 WCU",
    "units of GetItem": _MOTO_GET,
    "units of GetItem, projected": _MOTO_GET,
    "units of BatchGetItem": (
        "4 KB and 4 KB + 1 B and nothing: 3, 4 KB and 4 KB + 1 B and nothing consistent: 3 RCU"
    ),
    "units of Query": "2 KB and 2 KB: 1, 2 KB and 2 KB + 1 B: 1 RCU",
}

KNOWN_DIFFERENCES = {"dynoxide": DYNOXIDE, "ministack": MINISTACK, "moto": MOTO}
