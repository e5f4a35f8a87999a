"""Files of rows, read block by block and converted by the schema of their namespace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from chalk_online_store.cli.loading.formats import Block, InputFile, Opened, TextOptions, open_file
from chalk_online_store.codec.columns import Stored
from chalk_online_store.errors import InvalidSchema, InvalidValue
from chalk_online_store.integrations.arrow import moment_type, namespace_of
from chalk_online_store.integrations.conversion import (
    TableConverter,
    check_names,
    original_row,
    slice_of,
)
from chalk_online_store.integrations.json_rows import JsonRows, read_object
from chalk_online_store.integrations.texts import Texts
from chalk_online_store.schema import Document, Feature, Namespace

# --- The types of columns of text, when no schema states them ------------------------------
#
# A type is taken only if every text of the file is in its plain form. So texts with leading zeros,
# numbers with more digits than their type has, and columns of mixed content stay text.


_INT = "^(0|-?[1-9][0-9]{0,17})$"
_FLOAT = (
    r"^-?((0|[1-9][0-9]{0,14})"  # A float holds every integer of 15 digits.
    r"|(0|[1-9][0-9]*)\.[0-9]+([eE][+-][0-9]{1,2})?"
    r"|[1-9]([eE][+-][0-9]{1,2}))$"  # Not 12E5, which may be an identifier.
)
_MOMENT = "^[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}"
_FORMS: tuple[tuple[pa.DataType, str], ...] = (
    (pa.bool_(), "^([Tt]rue|[Ff]alse|TRUE|FALSE)$"),
    (pa.int64(), _INT),
    (pa.float64(), _FLOAT),
    (pa.date32(), "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"),
    (pa.timestamp("us", "UTC"), rf"{_MOMENT}(\.[0-9]{{1,6}})?(Z|[+-][0-9]{{2}}:?[0-9]{{2}})$"),
    (pa.timestamp("us"), rf"{_MOMENT}(\.[0-9]{{1,6}})?$"),
)
_DIGITS = 17
"""A float keeps every number of so many digits apart from its neighbours as it prints it."""


class TextTypes:
    """The types that all texts of each column, so far, are values of."""

    def __init__(self, names: Iterable[str]) -> None:
        self._possible = {name: list(_FORMS) for name in names}
        self._seen = dict.fromkeys(self._possible, False)

    def add(self, columns: Mapping[str, Any]) -> None:
        """Look at some rows."""
        for name, column in columns.items():
            if name not in self._possible or not isinstance(column, Texts):
                continue
            texts = column.array.drop_null()
            self._seen[name] = self._seen[name] or len(texts) > 0
            self._possible[name] = [each for each in self._possible[name] if _fits(texts, *each)]

    def schema(self) -> pa.Schema:
        """Return the narrowest type of each column; text if there is none."""
        return pa.schema(
            [
                (name, possible[0][0] if possible and self._seen[name] else pa.string())
                for name, possible in self._possible.items()
            ]
        )


def _fits(texts: pa.Array, kind: pa.DataType, form: str) -> bool:
    if not pc.all(pc.match_substring_regex(texts, form), min_count=0).as_py():
        return False
    if pa.types.is_floating(kind):
        digits = pc.replace_substring_regex(texts, "[eE].*$", "")
        digits = pc.replace_substring_regex(digits, r"^-?[0.]*|\.", "")
        return (pc.max(pc.utf8_length(digits)).as_py() or 0) <= _DIGITS
    if pa.types.is_temporal(kind):
        try:
            texts.cast(kind)
        except pa.ArrowInvalid:
            return False
    return True


# --- JSON Lines ----------------------------------------------------------------------------

_EXACT = 2**53
_KINDS: dict[type, type] = {bool: bool, int: int, Decimal: float, float: float, str: str}


class JsonTypes:
    """The types of the values under each name of lines of JSON."""

    def __init__(self) -> None:
        self._kinds: dict[str, set[Any]] = {}
        self._inexact: set[str] = set()

    def add(self, row: Mapping[str, Any]) -> None:
        """Look at a row."""
        for name, value in row.items():
            kinds = self._kinds.setdefault(name, set())
            if value is not None:
                kinds.add(_KINDS.get(type(value), Document))
                if isinstance(value, int) and abs(value) > _EXACT:
                    self._inexact.add(name)

    def names(self) -> list[str]:
        """Return every name, in the order of their first rows."""
        return list(self._kinds)

    def type_of(self, name: str) -> Any:
        """Return the type of a name's values: a document if they are of several."""
        kinds = self._kinds[name]
        if kinds == {int, float} and name not in self._inexact:
            return float
        if len(kinds) == 1:
            return next(iter(kinds))
        return Document if kinds else str

    def namespace(self, name: str, key: list[str], leave_out: str | None) -> Namespace:
        """Return the namespace of these rows."""
        features = [
            Feature(each, _nullable(self.type_of(each)))
            for each in self.names()
            if each not in {*key, leave_out}
        ]
        parts = tuple(self.type_of(each) for each in key)
        composite = len(parts) > 1
        annotation = tuple[parts] if composite else parts[0]  # type: ignore[valid-type]
        return Namespace(name, annotation, features, key_name="id" if composite else key[0])


def _nullable(kind: Any) -> Any:
    return kind if kind is Document else kind | None


ROWS_PER_BATCH = 5_000
BYTES_PER_BATCH = 32 << 20
"""The size of a batch as columns in memory. Its rows take several times that."""

_INDEX = "__index_level_"

Refusal = tuple[Mapping[str, Any], InvalidValue]
"""A row as the file has it, and why it cannot be converted."""


class Rows(NamedTuple):
    """Some rows, and their observed-at where a column has them; `first` is their place.

    `refused` has the rows that cannot be converted, which are not among `rows`.
    """

    first: int
    rows: Sequence[Mapping[str, Any]]
    observed_at: Sequence[datetime] | Stored | None
    refused: Sequence[Refusal] = ()

    @property
    def total(self) -> int:
        """The number of rows of the file, including refused ones."""
        return len(self.rows) + len(self.refused)


class Source:
    """Files of one namespace's rows.

    `key` names the columns of the primary key, `observed_at` that of the observed-at, if any.
    Timestamps that have no time zone are in `time_zone`. Without a `given` namespace, types are
    those of the columns; of text, those that every value of a column has.
    Raises `InvalidValue` if a file cannot be read, `InvalidSchema` if it has no such columns.
    """

    def __init__(
        self,
        files: Sequence[InputFile],
        name: str,
        key: list[str],
        observed_at: str | None,
        given: Namespace | None = None,
        time_zone: str | None = None,
        options: TextOptions | None = None,
    ) -> None:
        self.files = files
        self._key = key
        self._observed_at = observed_at
        self._time_zone = time_zone
        self._options = options or TextOptions()
        self._json = JsonTypes()
        self._converters: dict[tuple[str, ...], TableConverter] = {}
        self.schema = self._schema(infer=given is None)
        if given is not None:
            self.namespace = given
        elif self.schema is None:
            self._check_json_columns()
            self.namespace = self._json.namespace(name, key, observed_at)
        else:
            leave_out = [observed_at] if observed_at else []
            self.namespace = namespace_of(
                name, self.schema, key, leave_out=leave_out, time_zone=time_zone
            )
        self._check()

    def _check(self) -> None:
        namespace = self.namespace
        if len(self._key) == 1 and namespace.key_name != self._key[0]:
            raise InvalidSchema(
                f"The primary key of {namespace.name!r} is {namespace.key_name!r}: --key "
                f"{namespace.key_name}."
            )
        if len(self._key) != len(namespace.key.parts):
            raise InvalidSchema(
                f"The primary key of {namespace.name!r} has {len(namespace.key.parts)} parts: name "
                "the column of each, --key for each one."
            )
        self._lines = JsonRows(namespace, self._key, self._observed_at, self._time_zone)
        if self.schema is not None:
            self._check_types(self._converter(self.schema.names), self.schema)

    def _check_types(self, converter: TableConverter, schema: pa.Schema) -> None:
        """A column of the wrong type is a fault of the file, not of each of its rows."""
        if self._observed_at is not None:
            field = schema.field(self._observed_at)
            if not (self._is_text and pa.types.is_string(field.type)):
                moment_type(field, self._time_zone)
        if self._is_text:
            return
        empty = {
            field.name: Texts(pa.array([], pa.string()))
            if field.name in self._partitions
            else pa.nulls(0, field.type)
            for field in schema
        }
        converter.convert(empty, 0)

    @property
    def _is_text(self) -> bool:
        return self.files[0].format == "csv"

    @property
    def _partitions(self) -> set[str]:
        return {name for name, _ in self.files[0].partitions}

    def _converter(self, names: Sequence[str]) -> TableConverter:
        """The converter of these columns; files may have them in another order."""
        found = self._converters.get(tuple(names))
        if found is None:
            found = TableConverter(
                self.namespace, names, self._key, self._observed_at, self._time_zone
            )
            self._converters[tuple(names)] = found
        return found

    # --- what the files have ---------------------------------------------------------------

    def _schema(self, *, infer: bool) -> pa.Schema | None:
        """The columns of all files; None for lines of JSON. Sets `count`, if it has to be read."""
        first: pa.Schema | None = None
        for file in self.files:
            with open_file(file, self._options) as opened:
                schema = _with_partitions(opened.schema, file)
            _check_columns(schema)
            if file is self.files[0]:
                first = schema
            elif file.format != self.files[0].format:
                raise InvalidValue(f"{file.name} is of another format than {self.files[0].name}.")
            elif difference := _difference(schema, first, same_types=infer):
                raise InvalidValue(
                    f"{file.name} has other columns than {self.files[0].name}: {difference}."
                )
        if first is None:
            self._survey_lines(infer=infer)
            return None
        if self._is_text:
            return self._survey_texts(first, infer=infer)
        return _with_text_for_nulls(first) if infer else first

    def _survey_texts(self, schema: pa.Schema, *, infer: bool) -> pa.Schema:
        """Read all text once, for its types, and to refuse another encoding before any write."""
        types, count = TextTypes(schema.names), 0
        for block in self._every_block():
            count += block.rows + len(block.broken)
            if infer:
                types.add(block.columns)
        self.count = count
        found = types.schema()
        for name in self._key if infer else ():
            field = found.field(name) if name in found.names else None
            if field is not None and not pa.types.is_integer(field.type):
                found = found.set(found.get_field_index(name), pa.field(name, pa.string()))
        return found if infer else schema

    def _survey_lines(self, *, infer: bool) -> None:
        count = 0
        for block in self._every_block():
            for line in block.lines if infer else ():
                with suppress(InvalidValue):  # It will cost its row.
                    self._json.add(read_object(line, count))
            count += block.rows
        self.count = count

    def _check_json_columns(self) -> None:
        needed = [*self._key, *([self._observed_at] if self._observed_at else [])]
        if self.count and not self._json.names():
            raise InvalidSchema(
                "The file has no JSON object. Write one object per line, not a list of them."
            )
        for name in needed:
            if name not in self._json.names():
                raise InvalidSchema(f"The file has no column {name!r}.")
        for name in self._key:
            if self._json.type_of(name) not in (int, str):
                raise InvalidSchema(f"Column {name!r}: a primary key is int or str.")

    def _every_block(self) -> Iterator[Block]:
        for file in self.files:
            with open_file(file, self._options) as opened:
                yield from opened.blocks

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What tells these files from others, or from themselves after a change."""
        columns = [f"{field.name}: {field.type}" for field in self.schema or ()]
        return {
            "files": len(self.files),
            "bytes": sum(file.size for file in self.files),
            "modified": max(file.modified for file in self.files),
            "columns": columns,
        }

    @cached_property
    def count(self) -> int:
        """The number of rows."""
        return sum(map(self._count, self.files))

    def _count(self, file: InputFile) -> int:
        with open_file(file, self._options) as opened:
            if opened.count is not None:
                return opened.count
            return sum(block.rows + len(block.broken) for block in opened.blocks)

    # --- reading ---------------------------------------------------------------------------

    def read(self, start: int = 0, rows_per_batch: int = ROWS_PER_BATCH) -> Iterator[Rows]:
        """Yield the rows from position `start` on, in batches of at most `rows_per_batch`."""
        first = 0
        for file in self.files:
            with open_file(file, self._options) as opened:
                skipped = _skippable(opened, start - first)
                if skipped is not None:
                    first += skipped
                    continue
                for block in opened.blocks:
                    yield from self._batches(block, first, start, rows_per_batch)
                    first += len(block.broken) + block.rows

    def _batches(self, block: Block, first: int, start: int, most: int) -> Iterator[Rows]:
        """Cut a block into batches, without its rows before `start`; broken rows come first."""
        skipped = max(0, start - first)
        broken = block.broken[skipped:]
        if broken:
            refused: list[Refusal] = [({"text": each.text}, each.error) for each in broken]
            yield Rows(first + skipped, [], None, refused)
        begin = max(0, skipped - len(block.broken))
        first += len(block.broken)
        most = min(most, max(1, BYTES_PER_BATCH * block.rows // max(1, block.bytes)))
        for offset in range(begin, block.rows, most):
            yield self._rows(first + offset, block, offset, min(most, block.rows - offset))

    def _rows(self, first: int, block: Block, offset: int, count: int) -> Rows:
        if block.lines:
            return self._rows_of_lines(first, block.lines[offset : offset + count])
        columns = {name: slice_of(c, offset, count) for name, c in block.columns.items()}
        found = self._converter(list(columns)).convert_rows(columns, first)
        refused = [(original_row(columns, row), error) for row, error in found.refused.items()]
        return Rows(first, found.rows, found.observed_at, refused)

    def _rows_of_lines(self, first: int, lines: Sequence[str]) -> Rows:
        rows, times, refused = [], [], []
        for row, line in enumerate(lines, first):
            try:
                found, observed_at = self._lines.convert(line, row)
            except InvalidValue as error:
                refused.append(({"text": line.strip()}, error))
            else:
                rows.append(found)
                times.append(observed_at)
        observed = None if self._observed_at is None else [t for t in times if t is not None]
        return Rows(first, rows, observed, refused)


def _skippable(opened: Opened, rows: int) -> int | None:
    """The rows of a file that lies wholly before those to read; None if it has to be read."""
    return opened.count if opened.count is not None and 0 < opened.count <= rows else None


def _with_partitions(schema: pa.Schema | None, file: InputFile) -> pa.Schema | None:
    if schema is None:
        return None
    for name, _ in file.partitions:
        schema = schema.append(pa.field(name, pa.string()))
    return schema


def _with_text_for_nulls(schema: pa.Schema) -> pa.Schema:
    """Let columns of nulls alone be text, as an empty column of CSV is."""
    fields = (f.with_type(pa.string()) if pa.types.is_null(f.type) else f for f in schema)
    return pa.schema(list(fields))


def _difference(
    schema: pa.Schema | None, first: pa.Schema | None, *, same_types: bool
) -> str | None:
    """Say in what the columns of a file differ from those of the first one."""
    if schema is None or first is None:
        return None
    if missing := sorted({*first.names} - {*schema.names}):
        return f"it has no {missing[0]!r}"
    if extra := sorted({*schema.names} - {*first.names}):
        return f"it has {extra[0]!r} as well"
    for name in first.names if same_types else ():
        here, there = schema.field(name).type, first.field(name).type
        if here != there:
            return f"{name!r} is {here}, not {there}; --schema states one type for all files"
    return None


def _check_columns(schema: pa.Schema | None) -> None:
    if schema is None:
        return
    check_names(schema.names)
    for name in schema.names:
        if not name or name.startswith(_INDEX):
            raise InvalidValue(
                f"Column {name!r} is the index of a pandas data frame, which has no name: write "
                "the file with index=False, or give the index a name."
            )
