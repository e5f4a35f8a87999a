"""PynamoDB: models. Datetimes are kept as numbers and vectors as bytes, as by all clients here."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Any

from pynamodb.attributes import (
    BinaryAttribute,
    BooleanAttribute,
    NumberAttribute,
    UnicodeAttribute,
)
from pynamodb.models import Model

from benchmarks.clients.base import ACCESS_KEY, REGION, SECRET_KEY, Call, Client
from benchmarks.data import Dataset, Floats, Row
from benchmarks.items import KEY, TIMES, Conversion

_ATTRIBUTES: dict[Any, Any] = {
    float: NumberAttribute,
    int: NumberAttribute,
    datetime: NumberAttribute,
    str: UnicodeAttribute,
    bool: BooleanAttribute,
}


class PynamoDB(Client):
    """One model a table."""

    packages = ("pynamodb", "botocore")

    def __init__(self, url: str, prefix: str) -> None:
        super().__init__(url, prefix)
        self._model = cache(self._make_model)

    def _make_model(self, dataset: Dataset) -> Any:
        meta = {
            "table_name": self.table(dataset),
            "region": REGION,
            "host": self.url,
            "aws_access_key_id": ACCESS_KEY,
            "aws_secret_access_key": SECRET_KEY,
        }
        attributes = {name: _attribute(kind) for name, kind in dataset.kinds.items()}
        times = {name: NumberAttribute() for name in TIMES}
        key = {KEY: UnicodeAttribute(hash_key=True)}
        return type(
            "Features", (Model,), {"Meta": type("Meta", (), meta), **key, **attributes, **times}
        )

    def reader(self, dataset: Dataset, ids: list[int]) -> Call:
        """As `Client.reader`."""
        model, conversion = self._model(dataset), Conversion(dataset)
        keys = [str(number) for number in ids]

        def read_one() -> list[Row]:
            return [conversion.row(_values(model.get(keys[0])))]

        def read() -> list[Row]:
            return conversion.rows(ids, map(_values, model.batch_get(keys)))

        return read_one if len(ids) == 1 else read

    def writer(self, dataset: Dataset, rows: list[Row]) -> Call:
        """As `Client.writer`."""
        model, conversion = self._model(dataset), Conversion(dataset)

        def write() -> None:
            with model.batch_write() as batch:
                for row in rows:
                    batch.save(model(**conversion.item(row)))

        return write

    def updater(self, dataset: Dataset, rows: list[Row]) -> Call:
        """As `Client.updater`."""
        model, conversion = self._model(dataset), Conversion(dataset)
        times = model.observed_at
        condition = times.does_not_exist() | (times <= TIMES["observed_at"])
        attributes = {name: getattr(model, name) for name in conversion.names}

        def update() -> None:
            for row in rows:
                item = conversion.item(row)
                actions = [attribute.set(item[name]) for name, attribute in attributes.items()]
                model(item[KEY]).update(actions, condition)

        return update

    def close(self) -> None:
        """It has nothing to close."""


def _attribute(kind: Any) -> Any:
    if isinstance(kind, Floats):
        return BinaryAttribute(legacy_encoding=False)
    return _ATTRIBUTES[kind]()


def _values(instance: Any) -> dict[str, Any]:
    values: dict[str, Any] = instance.attribute_values
    return values
