"""Validators of arguments: one for each kind, for every public function.

Python iterates a str letter by letter, a mapping by its names and a data frame by its columns, so
`delete(User, "bob")` would delete the entities "b" and "o". A bool is an int, NaN compares as
false with every bound, and a timeout of 1e10 seconds overflows in the operating system. Each of
these is refused here, before anything is sent, by an error that names the argument, what was
expected, the type that was given, and the remedy. A message never holds the argument itself: it
may be a key or a value.

The lists that callers nearly always pass are recognised by their class, so that a read pays some
tens of nanoseconds for this. Durations have their validator in `schema.durations`, timestamps in
`operations.times`.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Collection, Iterable, Mapping, Set
from numbers import Real
from types import MemberDescriptorType
from typing import Any, TypeVar
from urllib.parse import parse_qs

from chalk_online_store.errors import (
    InvalidKey,
    InvalidSchema,
    InvalidURL,
    InvalidValue,
    OnlineStoreError,
    UnknownFeature,
)

V = TypeVar("V")

DEFAULT_TIMEOUT = 10.0
"""The default timeout of a call, in seconds."""

MAX_FUTURE_SKEW = "5m"
"""The default of a store's `max_future_skew`."""

MAX_SCANNED = 100_000
"""The default of the items that an exact vector search may read."""

MAX_TIMEOUT_SECONDS = 1_000_000.0
"""The longest timeout, 11 days: poll(2) and SQLite count milliseconds in 32 bits."""

MAX_CONNECTIONS = 10_000
"""The most connections of a pool to one region."""

_MAX_COUNT = 2**63 - 1
_PLAIN_LISTS = frozenset({list, tuple, range})
_SINGLE = (str, bytes, bytearray, memoryview)

Fault = type[OnlineStoreError]


# --- lists ---------------------------------------------------------------------------------


def key_list(keys: Iterable[Any], argument: str = "keys") -> list[Any]:
    """Primary keys as a new list. Raises `InvalidKey` for anything that is not a list of keys."""
    if type(keys) in _PLAIN_LISTS:
        return list(keys)
    return list_of(keys, argument, "primary keys", "[key]", InvalidKey)


def name_list(names: Iterable[Any], argument: str = "features") -> tuple[str, ...]:
    """Names of features as a tuple, references of chalkpy's by their full names.

    Raises `InvalidValue` for anything but a list. Whether each is a name, and of a feature, is
    checked by `Namespace.feature`.
    """
    if type(names) in _PLAIN_LISTS:
        found = tuple(names)
    else:
        found = tuple(list_of(names, argument, "feature names", "[name]"))
    try:
        "".join(found)  # The cheapest test of whether all of them are texts.
    except TypeError:
        return tuple(map(plain_name, found))
    return found


def text_list(texts: Iterable[str], argument: str, of: str) -> tuple[str, ...]:
    """Texts, such as names of regions, as a tuple. Raises `InvalidValue`."""
    found = list_of(texts, argument, of, "[name]")
    for text in found:
        check_text(text, f"each element of {argument}")
    return tuple(found)


def row_list(rows: Iterable[Any], argument: str = "rows") -> list[Any]:
    """Rows as a new list. Raises `InvalidValue` for a single row, a table or a text."""
    if type(rows) in _PLAIN_LISTS:
        return list(rows)
    if _is_row(rows):
        raise InvalidValue(_expected(rows, argument, "mappings or row objects", "[row]"))
    if is_frame(rows):
        raise InvalidValue(
            f"{argument} must be a list of mappings or row objects; got {kind_of(rows)}. Use "
            "write_table of chalk_online_store.integrations.frames for tables and data frames."
        )
    return list_of(rows, argument, "mappings or row objects", "[row]")


def list_of(
    values: Iterable[Any], argument: str, of: str, hint: str, fault: Fault = InvalidValue
) -> list[Any]:
    """The elements of an argument that is a list of something; raises `fault`."""
    if isinstance(values, Mapping) or is_frame(values):
        raise fault(
            f"{argument} must be a list of {of}; got {kind_of(values)}. Pass a list, a tuple or "
            "one column."
        )
    try:
        if isinstance(values, _SINGLE) or _is_reference(values):
            raise TypeError
        iterator = iter(values)
    except TypeError:
        raise fault(_expected(values, argument, of, hint)) from None
    return list(iterator)


def check_ordered(values: Any, argument: str) -> None:
    """Refuse a set where elements are matched by position. Raises `InvalidValue`."""
    if isinstance(values, Set):
        raise InvalidValue(
            f"{argument} must be in the order of the rows; got {kind_of(values)}, which has no "
            "order. Pass a list."
        )


def _is_row(value: Any) -> bool:
    """Return True for a row that can be iterated: of a NamedTuple, or of pydantic or chalkpy."""
    cls = type(value)
    marks = ("model_fields", "_fields", "__chalk_feature_set__")
    return isinstance(value, Mapping) or any(hasattr(cls, mark) for mark in marks)


def is_frame(value: Any) -> bool:
    """Return True for a table or data frame of any library: iterating one gives its columns."""
    cls = type(value)
    return hasattr(cls, "__dataframe__") or hasattr(cls, "columns")


def _expected(value: Any, argument: str, of: str, hint: str) -> str:
    return f"{argument} must be a list of {of}; got {kind_of(value)}. Did you mean {hint}?"


# --- names of features ---------------------------------------------------------------------


def plain_name(name: Any) -> Any:
    """Return the full name, `user.risk`, of a reference to a feature, such as `User.risk`.

    References of chalkpy, and the slots of feature classes that have slots, are converted. The
    references of other feature classes are texts already. Anything else is returned as it is.

    Raises `UnknownFeature` for a reference of chalkpy that stands for an expression, or for a
    window or an attribute that its class does not have.
    """
    if isinstance(name, str):
        return name
    if type(name) is MemberDescriptorType:
        namespace = getattr(name.__objclass__, "__chalk_namespace__", None)
        return name if namespace is None else f"{namespace.name}.{name.__name__}"
    if not _is_reference(name):
        return name
    wrappers = sys.modules["chalk.features.feature_wrapper"]
    try:
        full_name: str = wrappers.unwrap_feature(name).root_fqn
    except Exception as error:
        raise UnknownFeature(
            f"A {kind_of(name)} of chalkpy is not a feature ({kind_of(error)}). Pass a reference "
            'such as User.risk or User.txn_count["1d"], or its name.'
        ) from error
    return full_name


def plain_names(given: Mapping[Any, V]) -> Mapping[Any, V]:
    """Return a mapping by names of features with `plain_name` of each key.

    A reference and its full name are equal keys, so no two keys become one.
    """
    if all(type(name) is str for name in given):
        return given
    return {plain_name(name): value for name, value in given.items()}


def name_mapping(given: Mapping[Any, V], argument: str, example: str) -> Mapping[str, V]:
    """Return a mapping by names of features, references of chalkpy by their full names.

    Raises `InvalidValue` for anything but a mapping.
    """
    if isinstance(given, Mapping):
        given = plain_names(given)
    check_mapping(given, argument, example)
    return given


def _is_reference(value: Any) -> bool:
    """Return True for a reference of chalkpy, which is imported if there is one."""
    wrappers = sys.modules.get("chalk.features.feature_wrapper")
    fields = sys.modules.get("chalk.features.feature_field")
    if wrappers is None or fields is None:
        return False
    return isinstance(value, (wrappers.FeatureWrapper, fields.Feature))


# --- mappings, texts and flags -------------------------------------------------------------


def check_mapping(value: Any, argument: str, example: str, fault: Fault = InvalidValue) -> None:
    """Refuse anything but a mapping from str."""
    if not isinstance(value, Mapping):
        raise fault(f"{argument} must be a dict; got {kind_of(value)}. Write it as {example}.")
    for name in value:
        check_text(name, f"each key of {argument}", fault)


def check_text(value: Any, argument: str, fault: Fault = InvalidValue) -> None:
    """Refuse anything but a str."""
    if not isinstance(value, str):
        raise fault(f"{argument} must be a str; got {kind_of(value)}. Pass its name as text.")


def check_flag(value: Any, argument: str, fault: Fault = InvalidValue) -> None:
    """Refuse anything but a bool: "false" would be true."""
    if value is not True and value is not False and not is_numpy(value, "bool", "bool_"):
        raise fault(f"{argument} must be a bool; got {kind_of(value)}. Pass True or False.")


def check_instance(
    value: Any, kind: type, argument: str, fault: Fault = InvalidSchema, *, optional: bool = True
) -> None:
    """Refuse anything but an instance of a class of settings, or None if it is optional."""
    if not isinstance(value, kind) and not (optional and value is None):
        raise fault(
            f"{argument} must be an instance of {kind.__name__}; got {kind_of(value)}. Pass "
            f"{kind.__name__}(...)."
        )


def check_callable(value: Any, argument: str, example: str) -> None:
    """Refuse anything but a function, or None."""
    if value is not None and not callable(value):
        raise InvalidValue(f"{argument} must be callable; got {kind_of(value)}. Pass {example}.")


def check_choice(
    value: Any, choices: tuple[str, ...], argument: str, fault: Fault = InvalidValue
) -> None:
    """Refuse anything but one of some texts."""
    if not isinstance(value, str) or value not in choices:
        wanted = " or ".join(f'"{choice}"' for choice in choices)
        raise fault(f"{argument} must be {wanted}; got {kind_of(value)} that is not.")


# --- numbers -------------------------------------------------------------------------------


def timeout_seconds(timeout: float, argument: str = "timeout") -> float:
    """A timeout in seconds. Raises `InvalidValue` unless it is from 0 to `MAX_TIMEOUT_SECONDS`."""
    if type(timeout) is float and 0 <= timeout <= MAX_TIMEOUT_SECONDS:
        return timeout
    return finite_number(
        timeout,
        argument,
        most=MAX_TIMEOUT_SECONDS,
        remedy="Pass seconds, such as 0.5, or None for the default.",
    )


def optional_timeout(timeout: float | None, argument: str = "timeout") -> float | None:
    """Like `timeout_seconds`; None stays None."""
    return None if timeout is None else timeout_seconds(timeout, argument)


def finite_number(
    value: Any,
    argument: str,
    *,
    least: float = 0.0,
    most: float = math.inf,
    remedy: str = "",
    fault: Fault = InvalidValue,
) -> float:
    """A finite number within bounds, as a float. Raises `fault`."""
    # numpy's timedelta64 counts as an integer there, and its number says nothing of its unit.
    if isinstance(value, bool) or is_numpy(value, "timedelta64") or not isinstance(value, Real):
        raise fault(
            f"{argument} must be a number (int or float); got {kind_of(value)}."
            f" {remedy or 'Pass an int or a float.'}"
        )
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not (math.isfinite(found) and least <= found <= most):
        bounds = f"of {least:,g} or more" if most == math.inf else f"from {least:,g} to {most:,g}"
        raise fault(
            f"{argument} must be a finite number {bounds}; got {found:g}."
            f" {remedy or 'Pass one within these bounds.'}"
        )
    return found


def whole_number(
    value: Any,
    argument: str,
    *,
    least: int = 1,
    most: int = _MAX_COUNT,
    fault: Fault = InvalidValue,
) -> int:
    """A whole number within bounds, as an int. Raises `fault`."""
    try:
        if isinstance(value, bool) or is_numpy(value, "bool", "bool_"):
            raise TypeError
        found = operator.index(value)
    except TypeError:
        raise fault(
            f"{argument} must be an int; got {kind_of(value)}. Pass {least:,} or more."
        ) from None
    if not least <= found <= most:
        bounds = f"{least:,} or more" if most == _MAX_COUNT else f"from {least:,} to {most:,}"
        given = f"{found:,}" if abs(found) <= _MAX_COUNT else "one with more than 64 bits"
        raise fault(f"{argument} must be {bounds}; got {given}. Pass a number within.")
    return found


def is_numpy(value: Any, *names: str) -> bool:
    """Return True for a scalar of one of these numpy types, without importing numpy.

    `numpy.bool_` is called `bool` since numpy 2.
    """
    cls = type(value)
    return cls.__module__ == "numpy" and cls.__name__ in names


def kind_of(value: Any) -> str:
    """The name of a value's class, for messages: never the value itself."""
    return type(value).__name__


def read_url_options(query: str, known: Collection[str], engine: str) -> dict[str, str]:
    """The options of a URL of an engine, which has those that are `known`; raises `InvalidURL`."""
    options = parse_qs(query, keep_blank_values=True)
    for name, values in options.items():
        if name not in known:
            names = ", ".join(sorted(known))
            raise InvalidURL(f"A {engine} URL has no option {name!r}; it has: {names}.")
        if len(values) != 1 or not values[0]:
            raise InvalidURL(f"The option {name!r} of a {engine} URL takes one value.")
    return {name: values[0] for name, values in options.items()}
