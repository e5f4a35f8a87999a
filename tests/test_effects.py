"""Operations perform effects so that a type checker can follow them.

`yield` gives a type checker `Any`, whatever the effect, and a generator that nobody runs is no
error to it. So this module reads the source: the result of an effect is bound to a name that is
annotated with its type, and an operation is run by `yield from`, returned, or handed on.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1] / "src" / "chalk_online_store"

RESULTS = {
    "NOW": ("Instant", "Instant | None"),
    "Now": ("Instant", "Instant | None"),
    "All": ("list[",),
    "Send": (),
    "Race": (),
    "Await": (),
    "Sleep": ("None",),
    "Spawn": ("None",),
}
"""How the type of each effect's result begins; () where it is whatever was asked for."""

OTHERS = frozenset(name for kind in (dict, list, set, str, bytes, np.ndarray) for name in dir(kind))
"""Methods of common types, which a call of an operation's name may mean as well."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Names:
    """The functions of some source that make operations, and those that do not, by name."""

    operations: set[str] = field(default_factory=set)
    others: set[str] = field(default_factory=lambda: set(OTHERS))

    @property
    def certain(self) -> set[str]:
        """The names that mean operations whatever they are called on."""
        return self.operations - self.others


def names_of(trees: Mapping[Path, ast.Module]) -> Names:
    names = Names()
    for tree in trees.values():
        scopes: list[ast.Module | ast.ClassDef] = [tree]
        scopes += (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
        for node in (each for scope in scopes for each in scope.body):
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    (names.operations if makes_operation(node) else names.others).add(name)
                case ast.AnnAssign(target=ast.Name(id=name)):  # A field may be a function.
                    names.others.add(name)
    return names


def makes_operation(function: Function) -> bool:
    returns = function.returns
    return (
        isinstance(returns, ast.Subscript)
        and isinstance(returns.value, ast.Name)
        and returns.value.id == "Operation"
    )


def faults(tree: ast.Module, names: Names) -> Iterator[str]:
    """What a type checker cannot follow in a module."""
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Yield):
            found = fault_of_yield(node, parents)
        elif isinstance(node, ast.Call) and is_operation(node, parents, names):
            found = fault_of_call(node, parents)
        else:
            continue
        if found:
            yield f"line {node.lineno}: {found}"


def fault_of_yield(node: ast.Yield, parents: Mapping[ast.AST, ast.AST]) -> str:
    function = function_around(node, parents)
    effect = effect_of(node)
    if effect is None or function is None or not makes_operation(function):
        return ""
    types, parent = RESULTS[effect], parents[node]
    match parent:
        case ast.Expr():
            return f"the result of {effect} is not used" if effect in ("NOW", "Now") else ""
        case ast.AnnAssign(annotation=annotation):
            return fault_of_type(effect, types, ast.unparse(annotation))
        case ast.Assign(targets=[ast.Name(id=name)]):
            stated = annotation_of(name, function)
            if stated is None:
                return f"{name!r}, the result of {effect}, has no annotation in this function"
            return fault_of_type(effect, types, stated)
        case ast.Attribute(attr="monotonic" | "wall") if effect in ("NOW", "Now"):
            return ""
        case ast.Return():
            assert isinstance(function.returns, ast.Subscript)
            returned = ast.unparse(function.returns.slice)
            return "" if returned == "Any" else fault_of_type(effect, types, returned)
        case ast.IfExp() if isinstance(parents[parent], ast.AnnAssign):
            bound = parents[parent]
            assert isinstance(bound, ast.AnnAssign)
            return fault_of_type(effect, types, ast.unparse(bound.annotation))
    return f"the result of {effect} is used before it is bound to an annotated name"


def fault_of_type(effect: str, types: tuple[str, ...], annotation: str) -> str:
    """`list[` stands for any list; other types are stated in full."""
    if not types:
        return ""
    if any(
        annotation == each or (each[-1] == "[" and annotation.startswith(each)) for each in types
    ):
        return ""
    if effect == "All" and annotation.startswith("Sequence["):
        return ""
    return f"the result of {effect} is not a {annotation}"


def effect_of(node: ast.Yield) -> str | None:
    """The name of the effect, None for a generator that yields other things."""
    match node.value:
        case ast.Name(id="NOW"):
            return "NOW"
        case ast.Call(func=ast.Name(id=name)) if name in RESULTS:
            return name
    return None


def annotation_of(name: str, function: Function) -> str | None:
    arguments = function.args
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        if argument.arg == name and argument.annotation is not None:
            return ast.unparse(argument.annotation)
    for node in ast.walk(function):
        match node:
            case ast.AnnAssign(target=ast.Name(id=found), annotation=annotation):
                if found == name:
                    return ast.unparse(annotation)
    return None


def function_around(node: ast.AST, parents: Mapping[ast.AST, ast.AST]) -> Function | None:
    while (parent := parents.get(node)) is not None:
        if isinstance(parent, Function):
            return parent
        node = parent
    return None


def is_operation(node: ast.Call, parents: Mapping[ast.AST, ast.AST], names: Names) -> bool:
    """Whether a call surely makes an operation.

    Names that mean other things too are followed to the class of `self` and to the functions of
    the module alone.
    """
    match node.func:
        case ast.Attribute(value=ast.Name(id="self"), attr=name) if name in names.operations:
            method = local_function(node, name, parents, ast.ClassDef)
            return name in names.certain if method is None else makes_operation(method)
        case ast.Attribute(attr=name):
            return name in names.certain
        case ast.Name(id=name) if name in names.operations:
            function = local_function(node, name, parents, ast.Module)
            return name in names.certain if function is None else makes_operation(function)
    return False


def local_function(
    node: ast.AST, name: str, parents: Mapping[ast.AST, ast.AST], scope: type[ast.AST]
) -> Function | None:
    """The function of a name in the class or module around a node."""
    while (parent := parents.get(node)) is not None:
        if isinstance(parent, scope):
            assert isinstance(parent, ast.ClassDef | ast.Module)
            for each in parent.body:
                if isinstance(each, Function) and each.name == name:
                    return each
        node = parent
    return None


def fault_of_call(node: ast.Call, parents: Mapping[ast.AST, ast.AST]) -> str:
    """An operation may be run, returned, or be part of something that is handed on."""
    what = ast.unparse(node.func)
    parent = parents[node]
    match parent:
        case ast.Expr():
            return f"{what} makes an operation that nobody runs: `yield from` it"
        case ast.Await() | ast.BinOp() | ast.BoolOp() | ast.Compare() | ast.UnaryOp():
            return f"{what} makes an operation, not its result: `yield from` it"
        case ast.Attribute(attr=attribute) if attribute not in ("send", "throw", "close"):
            return f"{what} makes an operation, which has no {attribute!r}: `yield from` it"
        case ast.Subscript(value=value) if value is node:
            return f"{what} makes an operation, not its result: `yield from` it"
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) if test is node:
            return f"{what} makes an operation, which is always true: `yield from` it"
        case ast.For(iter=iterated) | ast.comprehension(iter=iterated) if iterated is node:
            return f"{what} makes an operation, whose effects are no items: `yield from` it"
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            function = function_around(node, parents)
            used = function is not None and any(
                isinstance(each, ast.Name) and each.id == name and isinstance(each.ctx, ast.Load)
                for each in ast.walk(function)
            )
            return "" if used else f"{what} makes an operation that nobody runs: `yield from` it"
        case ast.Assign() | ast.AnnAssign():
            return f"{what} makes an operation: bind its result, by `yield from`"
    return ""


TEXTS = {path: path.read_text() for path in sorted(ROOT.rglob("*.py"))}
TREES = {path: ast.parse(text) for path, text in TEXTS.items() if "Operation" in text}
NAMES = names_of(TREES)
for text in TEXTS.values():  # Modules that know nothing of operations define other functions.
    NAMES.others.update(re.findall(r"def (\w+)\(", text) if "Operation" not in text else ())


def test_a_type_checker_follows_the_effects_of_the_source() -> None:
    """Each result of an effect has a type, and each operation is run, returned or handed on."""
    found = {
        path.relative_to(ROOT).as_posix(): list(faults(tree, NAMES)) for path, tree in TREES.items()
    }
    assert {path: some for path, some in found.items() if some} == {}


def test_the_source_has_effects_and_operations() -> None:
    """The check sees the effects and operations that there are."""
    yields = [
        node for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.Yield)
    ]
    assert {effect_of(node) for node in yields} >= set(RESULTS) - {"Now"}
    assert {"fan_out", "send_until_processed", "read_together"} <= NAMES.certain


FAULTY = {
    "a wrong type": ("x: str = yield NOW", "not a str"),
    "no type": ("x = yield NOW", "no annotation"),
    "a parameter of another type": ("name = yield NOW", "not a str"),
    "an argument": ("print((yield NOW))", "before it is bound"),
    "a part that an instant has not": ("x: int = (yield NOW).seconds", "before it is bound"),
    "a clock read for nothing": ("yield NOW", "not used"),
    "a result of Sleep": ("x: int = yield Sleep(1.0)", "not a int"),
    "results that are no list": ("x: int = yield All([], 1)", "not a int"),
    "a result that is returned": ("return (yield NOW)", "not a str"),
    "a forgotten yield from": ("other(1)", "nobody runs"),
    "a forgotten yield from of a method": ("self.another()", "nobody runs"),
    "a method of another object": ("self.tiers.another()", "nobody runs"),
    "a result that is an operation": ("x = other(1)", "nobody runs"),
    "an attribute": ("self.x = other(1)", "bind its result"),
    "two at once": ("x, y = other(1)", "bind its result"),
    "a condition": ("if other(1): pass", "always true"),
    "a loop": ("for x in other(1): pass", "no items"),
    "a comparison": ("return other(1) == 1", "not its result"),
    "a negation": ("return not other(1)", "not its result"),
    "a part": ("return other(1).report", "no 'report'"),
    "an item": ("return other(1)[0]", "not its result"),
}

SOUND = {
    "a type": "x: Instant = yield NOW",
    "a type that was stated before": "x: Instant = yield NOW\n        x = yield NOW",
    "a part": "x: float = (yield NOW).monotonic",
    "a response": "x: list[int] = yield Send(1, 1.0)",
    "results": "x: list[int] = yield All([], 1)",
    "a wait": "yield Sleep(1.0)",
    "yield from": "x = yield from other(1)",
    "an operation that is returned": "return other(1)",
    "operations that are handed on": "x: list[int] = yield All([other(1), other(2)], 2)",
    "an operation that is run later": "x = other(1)\n        yield Spawn(x)",
    "another method of an operation's name": "self.get(1)",
}

SOURCE = """
def other(count: int) -> Operation[int]: ...

class Some:
    def another(self) -> Operation[int]: ...
    def get(self, key: int) -> int: ...

    def operation(self, name: str) -> Operation[str]:
        {}
"""


def faults_of(statement: str) -> list[str]:
    tree = ast.parse(SOURCE.format(statement))
    return list(faults(tree, names_of({Path(): tree})))


@pytest.mark.parametrize(("statement", "fault"), FAULTY.values(), ids=list(FAULTY))
def test_what_cannot_be_followed_is_found(statement: str, fault: str) -> None:
    """Each way to lose an effect's type, or an operation, is one fault."""
    (found,) = faults_of(statement)
    assert fault in found


@pytest.mark.parametrize("statement", SOUND.values(), ids=list(SOUND))
def test_what_can_be_followed_passes(statement: str) -> None:
    """The ways to perform effects that this code uses are no faults."""
    assert faults_of(statement) == []
