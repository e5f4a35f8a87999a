"""What `submit` can tell of rows before it takes them: names of features, and primary keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from chalk_online_store.codec.keys import keys_encoder
from chalk_online_store.codec.results import RESULTS
from chalk_online_store.errors import InvalidKey, OnlineStoreError, UnknownFeature
from chalk_online_store.schema import Namespace

OnInvalid = Literal["raise", "dead_letter"]
"""Whether rows with unknown names or invalid keys are refused at once, or become dead letters."""

_MAX_KNOWN = 1024


class RowValidator:
    """Checks the names and keys of rows. Thread-safe."""

    def __init__(self) -> None:
        self._validators: dict[str, _NamespaceValidator] = {}

    def check(self, namespace: Namespace, rows: Sequence[Mapping[str, Any]]) -> None:
        """Raise `UnknownFeature` or `InvalidKey` for the first bad row; a note names its position.

        Values are not looked at: they are encoded, and so checked, in the background.
        """
        if not rows or namespace is RESULTS:  # Rows of results are made here.
            return
        validator = self._validators.get(namespace.name)
        if validator is None or validator.namespace is not namespace:
            validator = self._validators[namespace.name] = _NamespaceValidator(namespace)
        validator.check(rows)


class _NamespaceValidator:
    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self._key_name = namespace.key_name
        self._known: set[tuple[str, ...]] = set()
        encode = keys_encoder(namespace.name, namespace.key)
        self._check_keys: Callable[[Sequence[Any]], object] = lambda keys: encode("", keys)

    def check(self, rows: Sequence[Mapping[str, Any]]) -> None:
        known, key_name = self._known, self._key_name
        keys = []
        for position, row in enumerate(rows):
            names = tuple(row)
            if names not in known:
                self._check_names(names, position)
            keys.append(row[key_name])
        try:
            self._check_keys(keys)
        except InvalidKey:
            for position, key in enumerate(keys):
                self._check_key(key, position)

    def _check_names(self, names: tuple[Any, ...], position: int) -> None:
        namespace = self.namespace
        try:
            for name in names:
                if name != self._key_name and name not in namespace.by_name:
                    namespace.feature(str(name))
                    raise UnknownFeature(f"A row calls features by their short name, not {name!r}.")
            if self._key_name not in names:
                raise InvalidKey(
                    f"A row of {namespace.name!r} has no primary key {self._key_name!r}."
                )
        except OnlineStoreError as error:
            raise _at(position, error) from None
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known.add(names)

    def _check_key(self, key: Any, position: int) -> None:
        try:
            self._check_keys([key])
        except InvalidKey as error:
            raise _at(position, error) from None


def _at(position: int, error: OnlineStoreError) -> OnlineStoreError:
    error.add_note(f"In the row at position {position}; nothing was accepted.")
    return error
