"""Real AWS environments in front of an engine: what DescribeTable says, and whose keys are taken.

A server forwards requests to an engine. It can change the description of the table, so that the
table looks like a replica of any kind of Global Table, refuse access keys and operations, and
hide the table.
"""

from __future__ import annotations

import json
import re
import threading
import urllib.request
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.error import HTTPError

TABLE = "features"


class Environment(ThreadingHTTPServer):
    """One region of AWS. Start and stop it by `with`.

    `description` replaces parts of what DescribeTable says; `keys` are the access keys that it
    knows, or None for all; `refused` has the error, as (code, message), of each refused operation.
    """

    daemon_threads = True

    def __init__(
        self,
        engine: str,
        description: Mapping[str, Any] | None = None,
        *,
        keys: set[str] | None = None,
        refused: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.engine = engine
        self.description = description or {}
        self.keys = keys
        self.refused = refused or {}
        self.seen: set[str] = set()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Environment
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        operation = self.headers["X-Amz-Target"].rpartition(".")[2]
        found = re.search(r"Credential=([^/]+)/", self.headers["Authorization"])
        key = found[1] if found else ""
        self.server.seen.add(key)
        if self.server.keys is not None and key not in self.server.keys:
            self._refuse("UnrecognizedClientException", "The security token is invalid.")
        elif operation in self.server.refused:
            self._refuse(*self.server.refused[operation])
        else:
            status, answer = self._forward(body)
            if operation == "DescribeTable" and status == 200:
                described = json.loads(answer)
                described["Table"] |= self.server.description
                answer = json.dumps(described).encode()
            self._send(status, answer)

    def _forward(self, body: bytes) -> tuple[int, bytes]:
        names = ("X-Amz-Target", "Authorization", "Content-Type", "X-Amz-Date")
        headers = {name: self.headers[name] for name in names if name in self.headers}
        request = urllib.request.Request(self.server.engine, body, headers)
        try:
            with urllib.request.urlopen(request) as response:
                return response.status, response.read()
        except HTTPError as error:
            return error.code, error.read()

    def _refuse(self, code: str, message: str) -> None:
        named = f"com.amazonaws.dynamodb.v20120810#{code}"
        self._send(400, json.dumps({"__type": named, "message": message}).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def arn(region: str, account: str) -> str:
    return f"arn:aws:dynamodb:{region}:{account}:table/{TABLE}"


def replica(region: str, status: str = "ACTIVE", account: str | None = None) -> dict[str, Any]:
    found = {"RegionName": region, "ReplicaStatus": status}
    return found | ({"ReplicaArn": arn(region, account)} if account else {})
