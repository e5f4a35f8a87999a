"""What goes over DynamoDB's wire: a request without its signature, a response without meaning.

Transports in `dynamodb.http` take the one and give the other; `bodies` and `answers` build and
read them. Neither shows its body in its repr: bodies hold keys and values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Request:
    """One call of DynamoDB's API, yet to be signed."""

    operation: str
    """The API's name for it, such as `BatchGetItem`."""
    body: bytes = field(repr=False)
    """The JSON document, UTF-8."""
    renew: bool = False
    """Whether to get new credentials first: the engine has called the present ones expired."""
    reconnect: bool = False
    """Whether to use a new connection and close the open ones. A response on one of them did not
    match its request, and the others may be out of step as well."""


@dataclass(frozen=True, slots=True)
class Response:
    """One whole answer, whatever its status."""

    status: int
    """The HTTP status code."""
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = field(repr=False)
    """As it came, undecoded."""
