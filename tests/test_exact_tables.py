"""Every type in every container: the value that is read is the one that was given, or a refusal."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import struct
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from chalk_online_store import Feature, InvalidValue, Namespace, OnlineStore
from chalk_online_store.cli.json_output import finite
from chalk_online_store.cli.loading.formats import input_files
from chalk_online_store.cli.loading.source import Source
from chalk_online_store.integrations.frames import read_table, write_table
from chalk_online_store.operations.arrow_types import elements_of, holds_document
from chalk_online_store.schema.types import FeatureType, StructType
from tests import strategies
from tests.helpers import stress
from tests.strategies import exactly

Values = Sequence[Any]


def write_arrow(store: OnlineStore, namespace: Namespace, table: pa.Table) -> None:
    write_table(store, namespace, table)


def write_views(store: OnlineStore, namespace: Namespace, table: pa.Table) -> None:
    """With views, as polars has them, and dictionaries."""
    column = table.column("value")
    if pa.types.is_string(column.type):
        for each in (column.cast(pa.string_view()), column.dictionary_encode()):
            write_table(store, namespace, table.set_column(1, "value", each))
    write_table(store, namespace, table)


def write_polars(store: OnlineStore, namespace: Namespace, table: pa.Table) -> None:
    try:
        frame = pl.from_arrow(table)
    except Exception:  # noqa: BLE001 - polars has no such type.
        reject()
    write_table(store, namespace, frame)


def write_pandas(store: OnlineStore, namespace: Namespace, table: pa.Table) -> None:
    write_table(store, namespace, table.to_pandas(types_mapper=pd.ArrowDtype))


def write_parquet(store: OnlineStore, namespace: Namespace, table: pa.Table) -> None:
    def write(path: Path) -> None:
        try:
            pyarrow.parquet.write_table(table, path)
        except pa.ArrowNotImplementedError:  # Such as a struct without fields.
            reject()

    load_file(store, namespace, "parquet", write)


def write_ipc(store: OnlineStore, namespace: Namespace, table: pa.Table) -> None:
    def write(path: Path) -> None:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)

    load_file(store, namespace, "arrow", write)


def load_file(
    store: OnlineStore, namespace: Namespace, suffix: str, write: Callable[[Path], object]
) -> None:
    """Write a file, and load it as the command does; a refused row raises its error."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, f"x.{suffix}")
        write(path)
        for rows in Source(input_files([str(path)], None), "", ["id"], None, namespace).read():
            store.write(namespace, rows.rows)
            for _, error in rows.refused:
                raise error


TABLES: dict[str, Callable[[OnlineStore, Namespace, pa.Table], None]] = {
    "arrow": write_arrow,
    "views": write_views,
    "polars": write_polars,
    "pandas": write_pandas,
    "parquet": write_parquet,
    "ipc": write_ipc,
}


def write_objects(store: OnlineStore, namespace: Namespace, values: Values) -> None:
    frame = pd.DataFrame({"id": range(len(values)), "value": pd.Series(values, dtype=object)})
    write_table(store, namespace, frame)


def plain_of(value: Any) -> Any:
    return finite(msgspec.to_builtins(value, enc_hook=_other), str)


def _other(value: Any) -> Any:
    return value.model_dump() if hasattr(value, "model_dump") else value.tolist()


def text_of(value: Any) -> str:
    """A value as a cell: texts as they are, what has parts as JSON."""
    plain = plain_of(value)
    return plain if isinstance(plain, str) else json_of(plain)


def json_of(plain: Any) -> str:
    return json.dumps(plain, default=lambda raw: base64.b64encode(raw).decode())


def write_csv(store: OnlineStore, namespace: Namespace, values: Values) -> None:
    def write(path: Path) -> None:
        out = io.StringIO()
        out.write("id,value\n")
        writer = csv.writer(out, quoting=csv.QUOTE_ALL)
        for row, value in enumerate(values):
            if value is None:
                out.write(f"{row},\n")
            else:
                writer.writerow([row, text_of(value)])
        path.write_text(out.getvalue(), newline="")

    load_file(store, namespace, "csv", write)


def write_jsonl(store: OnlineStore, namespace: Namespace, values: Values) -> None:
    def write(path: Path) -> None:
        rows = [{"id": row, "value": plain_of(value)} for row, value in enumerate(values)]
        path.write_text("".join(json_of(row) + "\n" for row in rows))

    load_file(store, namespace, "jsonl", write)


def write_rows(store: OnlineStore, namespace: Namespace, values: Values) -> None:
    store.write(namespace, [{"id": row, "value": value} for row, value in enumerate(values)])


OBJECTS: dict[str, Callable[[OnlineStore, Namespace, Values], None]] = {
    "rows": write_rows,
    "pandas objects": write_objects,
    "csv": write_csv,
    "jsonl": write_jsonl,
}


def has_other_nan(exact: Any) -> bool:
    """Return True for what `exactly` told of a NaN with a sign or payload: text has only "nan"."""
    if not isinstance(exact, tuple | frozenset):
        return False
    match exact:
        case (cls, bytes() as bits) if cls is float:
            return math.isnan(struct.unpack(">d", bits)[0]) and exact != exactly(math.nan)
        case (np.dtype() as dtype, _, bytes() as bits) if dtype.kind == "f":
            return bool(np.isnan(np.frombuffer(bits, dtype)).any())
    return any(map(has_other_nan, exact))


def is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def stored(store: OnlineStore, namespace: Namespace, count: int) -> list[Any]:
    return [exactly(v) for v in store.read(namespace, range(count)).column("value")]


def has_two_nulls(kind: FeatureType) -> bool:
    """Return True for a struct field that can be absent or None: Arrow has one null for both."""
    if isinstance(kind, StructType) and any(
        field.element.nullable and not field.required for field in kind.fields
    ):
        return True
    return any(has_two_nulls(element.type) for element in elements_of(kind))


@pytest.mark.parametrize("container", TABLES)
@settings(max_examples=stress(10))
@given(data=st.data(), of=strategies.any_types())
def test_tables_keep_values(container: str, data: st.DataObject, of: strategies.Typed) -> None:
    """Of each declared type, through a table of each library and through files with types."""
    namespace = Namespace("made", int, [Feature("value", of.annotation)])
    values = data.draw(st.lists(of.values, min_size=1, max_size=3))
    with (
        OnlineStore.open("sqlite://", schema=[namespace]) as store,
        OnlineStore.open("sqlite://", schema=[namespace]) as other,
    ):
        kind = namespace.features[0].type
        if holds_document(kind) or has_two_nulls(kind):
            reject()  # What Arrow has for these depends on their values.
        store.write(namespace, [{"id": i, "value": value} for i, value in enumerate(values)])
        try:
            table = read_table(store, namespace, range(len(values)))
        except InvalidValue:  # Integers of more than 64 bits within something.
            reject()
        try:
            TABLES[container](other, namespace, table)
        except InvalidValue as error:
            assert "value" in str(error)  # noqa: PT017
            return
        assert stored(other, namespace, len(values)) == stored(store, namespace, len(values))


@pytest.mark.parametrize("container", OBJECTS)
@settings(max_examples=stress(20))
@given(data=st.data(), of=strategies.any_types())
def test_objects_and_text_keep_values(
    container: str, data: st.DataObject, of: strategies.Typed
) -> None:
    """Of each declared type, as rows, objects of pandas, cells of CSV and members of JSON."""
    namespace = Namespace("made", int, [Feature("value", of.annotation)])
    values = data.draw(st.lists(of.values, min_size=1, max_size=3))
    document = holds_document(namespace.features[0].type)
    if document and container not in ("rows", "pandas objects"):
        reject()  # JSON has fewer types than a document.
    if container == "pandas objects" and any(map(is_nan, values)):
        reject()  # It is a null there.
    with (
        OnlineStore.open("sqlite://", schema=[namespace]) as store,
        OnlineStore.open("sqlite://", schema=[namespace]) as other,
    ):
        store.write(namespace, [{"id": i, "value": value} for i, value in enumerate(values)])
        values = store.read(namespace, range(len(values))).column("value")  # Times in UTC.
        if container in ("csv", "jsonl") and any(has_other_nan(exactly(v)) for v in values):
            reject()
        try:
            OBJECTS[container](other, namespace, values)
        except InvalidValue as error:
            assert "value" in str(error)  # noqa: PT017
            return
        assert stored(other, namespace, len(values)) == stored(store, namespace, len(values))
