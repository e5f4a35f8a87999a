"""Carries signed requests to a DynamoDB endpoint over HTTP/1.1, for threads and for tasks.

Both transports do the same: sign, send once, read the whole answer, all within one timeout.
Neither retries, follows redirects or unpacks anything. Whatever goes wrong on the
way becomes `ConnectionFailed` or `RequestTimeout`; every HTTP status is an answer.

`exchange` and `tunnel` know HTTP and no socket, `blocking` and `aio` know sockets and no HTTP.
"""

from chalk_online_store.dynamodb.http.aio import AsyncHttpTransport
from chalk_online_store.dynamodb.http.blocking import HttpTransport

__all__ = ["AsyncHttpTransport", "HttpTransport"]
