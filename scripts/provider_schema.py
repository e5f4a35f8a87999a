"""Put the schema of Terraform's AWS provider into the virtual environment that runs this.

The tests serve it to terraform, which then checks and plans offline what we render. It comes from
npm's `@cdktf/provider-aws`, which is generated from the provider's schema: of that package this
keeps the arguments of a few resources, in the form of `terraform providers schema -json`. The
package is under the MPL-2.0, hence nothing of it is in this repository.

Run it from the repository's root: `python -m scripts.provider_schema`.
"""

from __future__ import annotations

import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from scripts.install_engines import (
    ENGINES,
    npm_from_pypi,
    refuse_to_install_outside_a_venv,
    run,
)

PACKAGE = "@cdktf/provider-aws@21.22.1"
SCHEMA = ENGINES / "terraform-provider-aws.json"

RESOURCES = [
    "appautoscaling-policy",
    "appautoscaling-target",
    "backup-plan",
    "backup-selection",
    "backup-vault",
    "cloudwatch-metric-alarm",
    "dynamodb-contributor-insights",
    "dynamodb-resource-policy",
    "dynamodb-table",
    "dynamodb-table-replica",
    "iam-policy",
    "iam-role",
    "iam-role-policy-attachment",
]
DATA_SOURCES = [
    "data-aws-caller-identity",
    "data-aws-dynamodb-table",
    "data-aws-dynamodb-tables",
    "data-aws-partition",
]
PROVIDER = "provider"

_VERSION = re.compile(r"providerVersion: '([\d.]+)'")
_TOP = re.compile(r'^(\w+)\.tfResourceType = "(\w+)"', re.MULTILINE)
_CLASS = re.compile(r"^class (\w+) extends .*?^\}", re.MULTILINE | re.DOTALL)
_FUNCTION = re.compile(r"^function (\w+)ToHclTerraform\(.*?^\}", re.MULTILINE | re.DOTALL)
_METHOD = re.compile(r"^    synthesizeHclAttributes\(\) \{.*?^    \}", re.MULTILINE | re.DOTALL)
_ARGUMENT = re.compile(
    r"(\w+): \{\s+value: (.+),\s+isBlock: (true|false),\s+"
    r'type: "(\w+)",\s+storageClassType: "(\w+)",\s+\}'
)
_GETTER = re.compile(r"\bthis\.get(String|Number|Boolean|List)Attribute\('(\w+)'\)")
_NESTED = re.compile(r"(\w+)ToHclTerraform\b")
_INTERFACE = re.compile(r"^export interface (\w+).*?^\}", re.MULTILINE | re.DOTALL)
_REQUIRED = re.compile(r"^    readonly (\w+):", re.MULTILINE)

_NESTING = {"list": "list", "set": "set", "struct": "single"}
_SCALARS = {"string": "string", "number": "number", "boolean": "bool"}
_READABLE: dict[str, object] = {**_SCALARS, "list": ["list", "string"]}


def main() -> None:
    refuse_to_install_outside_a_venv()
    ENGINES.mkdir(exist_ok=True)
    npm = shutil.which("npm") or npm_from_pypi()
    with tempfile.TemporaryDirectory(dir=ENGINES) as directory:
        run(npm, "pack", PACKAGE, "--silent", "--pack-destination", directory)
        (archive,) = Path(directory).glob("*.tgz")
        files = read(archive)
    SCHEMA.write_text(json.dumps(schema(files), indent=1))


def read(archive: Path) -> dict[str, str]:
    """The files of the modules that we need, by their names below `lib`."""
    modules = [*RESOURCES, *DATA_SOURCES, PROVIDER]
    wanted = {
        f"package/lib/{name}/{file}" for name in modules for file in ("index.js", "index.d.ts")
    }
    files = {}
    with tarfile.open(archive) as package:
        for member in package:
            if member.name in wanted:
                text = package.extractfile(member)
                assert text is not None
                files[member.name.removeprefix("package/lib/")] = text.read().decode()
    return files


def schema(files: dict[str, str]) -> dict[str, object]:
    modules = {
        name: Module.parsed(files[f"{name}/index.js"], files[f"{name}/index.d.ts"])
        for name in [*RESOURCES, *DATA_SOURCES, PROVIDER]
    }
    version = _VERSION.search(files[f"{RESOURCES[0]}/index.js"])
    assert version is not None
    return {
        "provider_version": version[1],
        "provider": modules[PROVIDER].top(),
        "resource_schemas": {modules[name].name: modules[name].top() for name in RESOURCES},
        "data_source_schemas": {modules[name].name: modules[name].top() for name in DATA_SOURCES},
    }


class Argument(NamedTuple):
    """What code writes of an argument."""

    name: str
    value: str
    is_block: bool
    kind: str
    stored: str

    @property
    def nested(self) -> str:
        """The name of the type of a block."""
        found = _NESTED.search(self.value)
        assert found is not None, self
        return found[1][0].upper() + found[1][1:]

    @property
    def type(self) -> object:
        """The type of an argument that is no block, as the schema writes it."""
        if self.kind == "simple":
            return _SCALARS[self.stored]
        element = re.sub("(List|Map)$", "", self.stored)
        return [self.kind, _SCALARS[element]]


class Module(NamedTuple):
    """One of the package's modules: a resource, a data source, or the provider.

    `arguments` are those of each type, `required` the names among them, without underscores and
    in small letters; `readable` are the attributes, with their types.
    """

    name: str
    type: str
    arguments: dict[str, list[Argument]]
    required: dict[str, set[str]]
    readable: dict[str, dict[str, object]]

    @classmethod
    def parsed(cls, code: str, types: str) -> Module:
        top = _TOP.search(code)
        method = _METHOD.search(code)
        assert top is not None
        assert method is not None
        functions = {
            found[1][0].upper() + found[1][1:]: found[0] for found in _FUNCTION.finditer(code)
        }
        functions[top[1]] = method[0]
        interfaces = {found[1]: found[0] for found in _INTERFACE.finditer(types)}
        return cls(
            top[2],
            top[1],
            {name: list(arguments(text)) for name, text in functions.items()},
            {
                name.removesuffix("Config"): set(map(str.lower, _REQUIRED.findall(text)))
                for name, text in interfaces.items()
            },
            {
                found[1].removesuffix("OutputReference"): {
                    name: _READABLE[kind.lower()] for kind, name in _GETTER.findall(found[0])
                }
                for found in _CLASS.finditer(code)
            },
        )

    def top(self) -> dict[str, object]:
        block = self.block(self.type)
        attributes = block["attributes"]
        assert isinstance(attributes, dict)
        if "id" in attributes:  # The package does not tell; each of its `id`s is so.
            attributes["id"]["computed"] = True
        return block

    def block(self, name: str) -> dict[str, object]:
        found = self.arguments[name]
        needed = self.required[name]
        attributes: dict[str, dict[str, object]] = {
            each: {"type": kind, "computed": True}
            for each, kind in self.readable.get(name, {}).items()
        }
        blocks = {}
        for argument in found:
            is_needed = argument.name.replace("_", "") in needed
            if argument.is_block:
                blocks[argument.name] = self.nested(argument, is_needed)
            else:
                mode = "required" if is_needed else "optional"
                attributes[argument.name] = {"type": argument.type, mode: True}
        return {"attributes": attributes, "block_types": blocks}

    def nested(self, argument: Argument, is_needed: bool) -> dict[str, object]:
        many = "MapperHcl" in argument.value or argument.kind == "struct"
        return {
            "nesting_mode": _NESTING[argument.kind],
            "block": self.block(argument.nested),
            **({"min_items": 1} if is_needed else {}),
            **({} if many else {"max_items": 1}),
        }


def arguments(text: str) -> Iterator[Argument]:
    found = _ARGUMENT.findall(text)
    assert len(found) == text.count("isBlock:"), text
    for name, value, is_block, kind, stored in found:
        yield Argument(name, value, is_block == "true", kind, stored)


if __name__ == "__main__":
    main()
