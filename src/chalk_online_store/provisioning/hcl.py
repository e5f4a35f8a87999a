"""A writer of HCL, Terraform's language: blocks and values as `terraform fmt` leaves them.

It writes what a table takes, not all of the language.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple, TypeAlias

_INDENT = "  "
_BARE_KEY = re.compile(r"(?!(?:for|null|true|false)$)[A-Za-z_][A-Za-z0-9_-]*")
_OPENS_TEMPLATE = re.compile(r"[$%](?=\{)")
_SHORT = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Expression(NamedTuple):
    """Code that stands as it is, such as `aws_dynamodb_table.online_store.arn`, in one line."""

    code: str


class Template(NamedTuple):
    """A text with expressions in it."""

    parts: tuple[str | Expression, ...]


class Call(NamedTuple):
    """A function's call with one argument."""

    function: str
    argument: Value


Scalar: TypeAlias = "bool | int | float | str | Expression | Template"
Value: TypeAlias = "Scalar | Call | Sequence[Value] | Mapping[str, Value]"


class Attribute(NamedTuple):
    """An argument of a block: `name = value`."""

    name: str
    value: Value


class Block(NamedTuple):
    """A block, such as `resource "aws_dynamodb_table" "online_store" { … }`."""

    kind: str
    labels: tuple[str, ...]
    body: tuple[Attribute | Block, ...]


def block(kind: str, /, *labels: str, **arguments: Value) -> Block:
    """A block of arguments alone."""
    return Block(kind, labels, attributes(arguments))


def attributes(arguments: Mapping[str, Value]) -> tuple[Attribute, ...]:
    """Arguments by their names."""
    return tuple(Attribute(name, value) for name, value in arguments.items())


def document(comment: str, blocks: Iterable[Block]) -> str:
    """The text of a file: a comment, which may have several lines, and blocks."""
    remarks = "\n".join(f"# {line}".rstrip() for line in comment.splitlines())
    written = ("\n".join(_block(item, "").lines) for item in blocks)
    return "\n\n".join((remarks, *written)) + "\n"


def quote(text: str, *, only_ascii: bool = False) -> str:
    """A text as HCL writes it; what cannot be printed, and with `only_ascii` all else, is escaped.

    HCL: `${` and `%{` begin code, and are themselves when their first character is doubled.
    """
    doubled = _OPENS_TEMPLATE.sub(lambda found: found[0] * 2, text)
    return f'"{"".join(_escaped(each, only_ascii) for each in doubled)}"'


def _escaped(character: str, only_ascii: bool) -> str:
    if short := _SHORT.get(character):
        return short
    if character.isprintable() and (character.isascii() or not only_ascii):
        return character
    point = ord(character)
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


# --- lines ---------------------------------------------------------------------------------


class _Piece(NamedTuple):
    """A block, or what is assigned to a name: its first line follows the name."""

    name: str
    lines: list[str]

    @property
    def is_short(self) -> bool:
        return bool(self.name) and len(self.lines) == 1


def _block(item: Block, indent: str) -> _Piece:
    labels = "".join(f" {quote(label)}" for label in item.labels)
    pieces = [_piece(part, indent + _INDENT) for part in item.body]
    inside = [line for group in _groups(pieces) for line in ("", *group)][1:]
    opened = f"{indent}{item.kind}{labels} {{"
    return _Piece("", [opened, *inside, f"{indent}}}"] if inside else [f"{opened}}}"])


def _piece(item: Attribute | Block, indent: str) -> _Piece:
    if isinstance(item, Block):
        return _block(item, indent)
    return _Piece(f"{indent}{item.name}", _value(item.value, indent))


def _groups(pieces: Iterable[_Piece]) -> Iterator[list[str]]:
    """Assignments of one line each stand together, with their `=` below each other."""
    for short, group in groupby(pieces, key=lambda piece: piece.is_short):
        some = list(group)
        width = max(len(piece.name) for piece in some) if short else 0
        written = [_written(piece, width) for piece in some]
        yield from [[line for (line,) in written]] if short else written


def _written(piece: _Piece, width: int) -> list[str]:
    if not piece.name:
        return piece.lines
    first, *more = piece.lines
    return [f"{piece.name:<{width}} = {first}", *more]


# --- values --------------------------------------------------------------------------------


def _value(value: Value, indent: str) -> list[str]:
    if isinstance(value, Call):
        first, *more = _value(value.argument, indent)
        lines = [f"{value.function}({first}", *more]
        lines[-1] += ")"
        return lines
    if isinstance(value, Mapping):
        return _object(value, indent)
    if isinstance(value, bool | int | float | str | Expression | Template):
        return [_scalar(value)]
    return _list(value, indent)


def _scalar(value: Scalar) -> str:
    if isinstance(value, Expression):
        return value.code
    if isinstance(value, Template):
        return f'"{"".join(map(_part, value.parts))}"'
    if isinstance(value, str):
        return quote(value)
    return str(value).lower().removesuffix(".0")


def _part(part: str | Expression) -> str:
    return f"${{{part.code}}}" if isinstance(part, Expression) else quote(part)[1:-1]


def _list(values: Sequence[Value], indent: str) -> list[str]:
    inner = indent + _INDENT
    elements = [_value(value, inner) for value in values]
    if len(elements) < 2 and all(len(lines) == 1 for lines in elements):
        return [f"[{''.join(line for lines in elements for line in lines)}]"]
    for lines in elements:
        lines[0] = f"{inner}{lines[0]}"
        lines[-1] += ","
    return ["[", *(line for lines in elements for line in lines), f"{indent}]"]


def _object(values: Mapping[str, Value], indent: str) -> list[str]:
    if not values:
        return ["{}"]
    inner = indent + _INDENT
    pieces = [_Piece(f"{inner}{_key(key)}", _value(each, inner)) for key, each in values.items()]
    return ["{", *(line for group in _groups(pieces) for line in group), f"{indent}}}"]


def _key(key: str) -> str:
    # `terraform fmt` aligns by what one sees, of which Python knows nothing beyond ASCII.
    return key if _BARE_KEY.fullmatch(key) else quote(key, only_ascii=True)
