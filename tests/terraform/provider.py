"""A stand-in for Terraform's AWS provider: its schema is the real one, and it plans all as new.

It talks plugin protocol 6, by the messages of PyPI's `tf`. What the schema says, terraform checks
itself: which arguments there are, which are required, their types, how often a block may stand.
What only the provider's own code checks is not checked here: values of enumerations, say.

`python -m tests.terraform.provider SCHEMA` serves on a free port of 127.0.0.1, which it prints.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import msgpack
from tf.gen import tfplugin_pb2 as pb
from tf.gen import tfplugin_pb2_grpc as rpc

from tests.terraform import ACCOUNT

_FOUND = {
    "aws_caller_identity": {"account_id": ACCOUNT, "id": ACCOUNT},
    "aws_partition": {"partition": "aws", "dns_suffix": "amazonaws.com", "id": "aws"},
}
_UNKNOWN = msgpack.ExtType(0, b"\x00")
_NESTING = {
    "list": pb.Schema.NestedBlock.LIST,
    "set": pb.Schema.NestedBlock.SET,
    "single": pb.Schema.NestedBlock.SINGLE,
}


class Provider(rpc.ProviderServicer):  # type: ignore[misc]
    """What terraform asks for `validate` and for a first `plan`; of all else there is nothing."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema

    def GetProviderSchema(self, request: Any, context: object) -> Any:  # noqa: N802
        resources, sources = self._schema["resource_schemas"], self._schema["data_source_schemas"]
        return pb.GetProviderSchema.Response(
            provider=_schema(self._schema["provider"]),
            resource_schemas={name: _schema(block) for name, block in resources.items()},
            data_source_schemas={name: _schema(block) for name, block in sources.items()},
        )

    def ValidateProviderConfig(self, request: Any, context: object) -> Any:  # noqa: N802
        return pb.ValidateProviderConfig.Response()

    def ValidateResourceConfig(self, request: Any, context: object) -> Any:  # noqa: N802
        return pb.ValidateResourceConfig.Response()

    def ValidateDataResourceConfig(self, request: Any, context: object) -> Any:  # noqa: N802
        return pb.ValidateDataResourceConfig.Response()

    def ConfigureProvider(self, request: Any, context: object) -> Any:  # noqa: N802
        return pb.ConfigureProvider.Response()

    def PlanResourceChange(self, request: Any, context: object) -> Any:  # noqa: N802
        block = self._schema["resource_schemas"][request.type_name]
        proposed = msgpack.unpackb(request.proposed_new_state.msgpack, strict_map_key=False)
        return pb.PlanResourceChange.Response(planned_state=_packed(_planned(block, proposed)))

    def ReadDataSource(self, request: Any, context: object) -> Any:  # noqa: N802
        config = msgpack.unpackb(request.config.msgpack)
        return pb.ReadDataSource.Response(state=_packed(config | _FOUND[request.type_name]))


def _packed(value: object) -> Any:
    return pb.DynamicValue(msgpack=msgpack.packb(value))


def _planned(block: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with what only AWS can tell marked as unknown."""
    planned = dict(values)
    for name, attribute in block["attributes"].items():
        if attribute.get("computed") and values[name] is None:
            planned[name] = _UNKNOWN
    for name, nested in block["block_types"].items():
        if isinstance(values[name], list):
            planned[name] = [_planned(nested["block"], each) for each in values[name]]
    return planned


def _schema(block: Mapping[str, Any]) -> Any:
    return pb.Schema(version=1, block=_block(block))


def _block(block: Mapping[str, Any]) -> Any:
    return pb.Schema.Block(
        attributes=[_attribute(name, each) for name, each in block["attributes"].items()],
        block_types=[_nested(name, each) for name, each in block["block_types"].items()],
    )


def _attribute(name: str, attribute: Mapping[str, Any]) -> Any:
    modes = {mode: value for mode, value in attribute.items() if mode != "type"}
    return pb.Schema.Attribute(name=name, type=json.dumps(attribute["type"]).encode(), **modes)


def _nested(name: str, nested: Mapping[str, Any]) -> Any:
    return pb.Schema.NestedBlock(
        type_name=name,
        block=_block(nested["block"]),
        nesting=_NESTING[nested["nesting_mode"]],
        min_items=nested.get("min_items", 0),
        max_items=nested.get("max_items", 0),
    )


def main() -> None:
    server = grpc.server(ThreadPoolExecutor(4))
    provider = Provider(json.loads(Path(sys.argv[1]).read_text()))
    rpc.add_ProviderServicer_to_server(provider, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    signal.signal(signal.SIGTERM, lambda *_: server.stop(0))
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
