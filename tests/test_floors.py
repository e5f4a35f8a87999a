"""The source keeps the order of the house: what may import what."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

# From the ground up. A module imports from floors below its own, or from its own room; the
# rooms of one floor do not know each other. The package's __init__ is the roof: it may import
# everything, and nobody may import it.
FLOORS = [
    "report",
    "errors",
    "arguments",
    "logs",
    "_fork",
    "schema",
    "codec",
    "effects",
    "backend",
    "retry",
    "drivers",
    "network",
    "dynamodb valkey embedded",
    "urls",
    "routing",
    "tiers",
    "operations",
    "connect",
    "store async_store",
    "planning",
    "writer",
    "migration",
    "provisioning",
    "integrations",
    "testing",
    "cli",
    "__init__",
]

PACKAGE = "chalk_online_store"
ROOT = Path(__file__).parents[1] / "src" / PACKAGE
MODULES = sorted(ROOT.rglob("*.py"))
LEVELS = {room: level for level, rooms in enumerate(FLOORS) for room in rooms.split()}

every_module = pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.relative_to(ROOT).as_posix()) for path in MODULES]
)


@every_module
def test_a_module_has_a_floor(path: Path) -> None:
    """The table of floors names every room there is."""
    assert room_of(path) in LEVELS


@every_module
def test_a_module_imports_only_from_below(path: Path) -> None:
    """No module knows a floor above it, or another room of its own floor."""
    assert violations(room_of(path), package_of(path), path.read_text()) == []


def test_the_picture_of_the_house_is_right() -> None:
    """CONTRIBUTING.md draws the same floors in the same order, from the roof down."""
    drawing = (ROOT.parents[1] / "CONTRIBUTING.md").read_text().split("```\n")[1]
    drawn = [line[25:].partition("  ")[0] for line in drawing.splitlines() if line[1] != "-"]
    assert [floor.replace(" | ", " ") for floor in drawn] == FLOORS[::-1]


@pytest.mark.parametrize(
    "source",
    [
        "from chalk_online_store.store import OnlineStore",
        "from chalk_online_store import store",
        "from chalk_online_store import OnlineStore",
        "import chalk_online_store",
        "import chalk_online_store.store as s",
        "from .. import store",
        "from ..store import OnlineStore",
        "from ..valkey.transport import send",
        "def f():\n    from chalk_online_store.store import OnlineStore",
        "if TYPE_CHECKING:\n    pass\nelse:\n    from ..store import OnlineStore",
        "from chalk_online_store.attic import old",
    ],
)
def test_an_import_from_above_is_found(source: str) -> None:
    """The check sees every way to write an import, also of a room without a floor."""
    assert len(violations("dynamodb", f"{PACKAGE}.dynamodb", source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import os, msgspec",
        "from chalk_online_store import errors",
        "from chalk_online_store.errors import Throttled",
        "from . import signing",
        "from .signing import sign",
        "from chalk_online_store.dynamodb.signing import sign",
        "from ..codec.ids import all_ids",
        "if TYPE_CHECKING:\n    from ..store import OnlineStore",
        "if typing.TYPE_CHECKING:\n    from ..store import OnlineStore",
    ],
)
def test_an_import_from_below_is_allowed(source: str) -> None:
    """Floors below, the own room, other packages and types alone are free to import."""
    assert violations("dynamodb", f"{PACKAGE}.dynamodb", source) == []


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def package_of(path: Path) -> str:
    return ".".join((PACKAGE, *path.relative_to(ROOT).parts[:-1]))


def violations(room: str, package: str, source: str) -> list[str]:
    imported = {found for node in imports(ast.parse(source)) for found in rooms(node, package)}
    return [f"{room} imports {other}" for other in sorted(imported) if not may_import(room, other)]


def may_import(room: str, other: str) -> bool:
    return room == other or LEVELS[other] < LEVELS[room]


def imports(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import statement below a node that runs, wherever it stands."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node
    for child in running_children(node):
        yield from imports(child)


def running_children(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        return iter(node.orelse)
    return ast.iter_child_nodes(node)


def rooms(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[str]:
    """The rooms of this package that an import statement enters."""
    for name in imported_names(node, package):
        top, _, rest = name.partition(".")
        if top == PACKAGE:
            room = rest.partition(".")[0]
            yield room if room in LEVELS else "__init__"  # which defines every other name


def imported_names(node: ast.Import | ast.ImportFrom, package: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    module = ".".join([*ancestors(package, node.level), *filter(None, [node.module])])
    return [f"{module}.{alias.name}" for alias in node.names]


def ancestors(package: str, dots: int) -> list[str]:
    """What the leading dots of a relative import stand for."""
    parts = package.split(".")
    return parts[: len(parts) - dots + 1] if dots else []
