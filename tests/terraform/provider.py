"""A stand-in for Terraform's AWS provider: its schema is the real one, its account is in memory.

It talks plugin protocol 6, by the messages of PyPI's `tf`. Terraform itself checks what the schema
says: which arguments there are, which are required, their types, how often a block may stand.
Rules that only the provider's own code has are not checked here: values of enumerations, say.

Of a table, it models the capacity as the provider's `expandProvisionedThroughputField` and
`resourceTableRead` treat it (internal/service/dynamodb/table.go): a table on demand has 0 units in
the state, and a change to PROVISIONED without units sends 1 unit. `Account` keeps every capacity
that was sent.

`python -m tests.terraform.provider SCHEMA ACCOUNT` serves on a free port of 127.0.0.1, which it
prints. The file ACCOUNT holds the tables; tests read and edit it.
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
_COMPUTED = {"aws_dynamodb_table": ("read_capacity", "write_capacity")}
"""Arguments that the provider fills in if a file leaves them out; the package does not tell."""

_FORCES_NEW = {"aws_dynamodb_table": ("name", "hash_key", "range_key")}
_UNITS = ("read_capacity", "write_capacity")
_LEAST_UNITS = 1
_NESTING = {
    "list": pb.Schema.NestedBlock.LIST,
    "set": pb.Schema.NestedBlock.SET,
    "single": pb.Schema.NestedBlock.SINGLE,
}


class Account:
    """The tables of an AWS account, in a file that tests read and edit.

    `tables` maps a name to attributes, as the provider reads them. `sent` is the list of the units
    that were sent for a table, in order, each with its billing mode.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, Any]:
        if not self._path.exists():
            return {"tables": {}, "sent": []}
        found: dict[str, Any] = json.loads(self._path.read_text())
        return found

    def edit(self, **changes: Any) -> None:
        self._path.write_text(json.dumps(self.read() | changes))

    def table(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.read()["tables"].get(name, {})
        return found

    def set_table(self, name: str, attributes: Mapping[str, Any]) -> None:
        tables = self.read()["tables"]
        self.edit(tables=tables | {name: tables.get(name, {}) | dict(attributes)})

    def send(self, prior: Mapping[str, Any] | None, planned: dict[str, Any]) -> None:
        """Create or update a table: `planned` becomes what the provider reads back."""
        name, mode = planned["name"], planned["billing_mode"]
        capacity = ("billing_mode", *_UNITS)
        if prior is None or any(prior[each] != planned[each] for each in capacity):
            if mode == "PROVISIONED":
                for each in _UNITS:
                    planned[each] = planned[each] or _LEAST_UNITS
            else:
                planned |= dict.fromkeys(_UNITS, 0)
            sent = [name, mode, planned["read_capacity"], planned["write_capacity"]]
            self.edit(sent=[*self.read()["sent"], sent])
        known = {each: planned[each] for each in ("billing_mode", *_UNITS)}
        self.set_table(name, known)


class Provider(rpc.ProviderServicer):  # type: ignore[misc]
    """The requests of `validate`, `plan`, `apply` and `import`."""

    def __init__(self, schema: Mapping[str, Any], account: Account) -> None:
        self._schema = schema
        self._account = account

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

    def UpgradeResourceState(self, request: Any, context: object) -> Any:  # noqa: N802
        state = json.loads(request.raw_state.json)
        return pb.UpgradeResourceState.Response(
            upgraded_state=_packed(_complete(self._block(request.type_name), state))
        )

    def ReadResource(self, request: Any, context: object) -> Any:  # noqa: N802
        state = _unpacked(request.current_state)
        if request.type_name == "aws_dynamodb_table":
            state |= self._account.table(state["id"])
        return pb.ReadResource.Response(new_state=_packed(state))

    def ImportResourceState(self, request: Any, context: object) -> Any:  # noqa: N802
        identifier, _, region = request.id.partition("@")
        known = {"id": identifier, "region": region or None}
        if request.type_name == "aws_dynamodb_table":
            known["name"] = identifier
        state = _complete(self._block(request.type_name), known)
        imported = pb.ImportResourceState.ImportedResource(
            type_name=request.type_name, state=_packed(state)
        )
        return pb.ImportResourceState.Response(imported_resources=[imported])

    def PlanResourceChange(self, request: Any, context: object) -> Any:  # noqa: N802
        proposed = _unpacked(request.proposed_new_state)
        if proposed is None:  # The resource is to be destroyed.
            return pb.PlanResourceChange.Response(planned_state=request.proposed_new_state)
        prior = _unpacked(request.prior_state)
        replaced = [
            name
            for name in _FORCES_NEW.get(request.type_name, ())
            if prior is not None and prior[name] != proposed[name]
        ]
        return pb.PlanResourceChange.Response(
            planned_state=_packed(
                proposed if prior else _planned(self._block(request.type_name), proposed)
            ),
            requires_replace=[
                pb.AttributePath(steps=[pb.AttributePath.Step(attribute_name=name)])
                for name in replaced
            ],
            legacy_type_system=True,
        )

    def ApplyResourceChange(self, request: Any, context: object) -> Any:  # noqa: N802
        planned = _unpacked(request.planned_state)
        if planned is None:
            return pb.ApplyResourceChange.Response(new_state=request.planned_state)
        applied = _applied(planned)
        if request.type_name == "aws_dynamodb_table":
            applied["id"] = applied["name"]
            self._account.send(_unpacked(request.prior_state), applied)
        return pb.ApplyResourceChange.Response(new_state=_packed(applied), legacy_type_system=True)

    def ReadDataSource(self, request: Any, context: object) -> Any:  # noqa: N802
        config = _unpacked(request.config)
        found: dict[str, Any]
        if request.type_name == "aws_dynamodb_tables":
            found = {"names": sorted(self._account.read()["tables"])}
        elif request.type_name == "aws_dynamodb_table":
            found = self._account.table(config["name"])
            if not found:
                said = f"reading DynamoDB Table ({config['name']}): couldn't find resource"
                problem = pb.Diagnostic(severity=pb.Diagnostic.ERROR, summary=said)
                return pb.ReadDataSource.Response(diagnostics=[problem])
            found = {"id": config["name"]} | {
                name: value for name, value in found.items() if name in config
            }
        else:
            found = _FOUND[request.type_name]
        return pb.ReadDataSource.Response(state=_packed(config | found))

    def _block(self, name: str) -> Any:
        return self._schema["resource_schemas"][name]


def _packed(value: object) -> Any:
    return pb.DynamicValue(msgpack=msgpack.packb(value))


def _unpacked(value: Any) -> Any:
    return msgpack.unpackb(value.msgpack, strict_map_key=False)


def _complete(block: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """A whole state, with null for all that is not known."""
    empty: dict[str, Any] = dict.fromkeys(block["attributes"])
    for name, nested in block["block_types"].items():
        empty[name] = None if nested["nesting_mode"] == "single" else []
    return empty | {name: value for name, value in known.items() if name in empty}


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


def _applied(planned: Any) -> Any:
    """The values with something in place of what was unknown."""
    if planned == _UNKNOWN:
        return None
    if isinstance(planned, dict):
        made = {name: _applied(value) for name, value in planned.items()}
        return made | {
            name: f"{name}-of-the-account"
            for name in ("id", "arn")
            if name in planned and planned[name] == _UNKNOWN
        }
    return [_applied(each) for each in planned] if isinstance(planned, list) else planned


def _with_computed(schema: dict[str, Any]) -> dict[str, Any]:
    for resource, names in _COMPUTED.items():
        for name in names:
            schema["resource_schemas"][resource]["attributes"][name]["computed"] = True
    return schema


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
    schema = _with_computed(json.loads(Path(sys.argv[1]).read_text()))
    provider = Provider(schema, Account(Path(sys.argv[2])))
    rpc.add_ProviderServicer_to_server(provider, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    signal.signal(signal.SIGTERM, lambda *_: server.stop(0))
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
