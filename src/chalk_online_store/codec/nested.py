"""Types with parts: lists, tuples, sets, dictionaries, structs and documents.

Codecs are compiled from the types of the parts, so no value's type is looked up when it is
encoded or decoded. The fields of a struct lie under short ids, as features do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

import msgpack
import msgspec
import numpy as np

from chalk_online_store.codec.bulk import EncodeAll, encoder_of_all
from chalk_online_store.codec.values import (
    NULL,
    Attribute,
    Binary,
    Encode,
    ValueCodec,
    ValueRefused,
    expect,
    microseconds_utc,
    read_null,
    scalar_codec,
)
from chalk_online_store.errors import DamagedItem, InvalidValue
from chalk_online_store.schema.types import (
    DictType,
    DocumentType,
    Element,
    FeatureType,
    ListType,
    SetType,
    StructType,
    TupleType,
)

Ids = Mapping[str, str]
"""The short ids of struct fields, by path: `user.address.street`."""

_json = msgspec.json.encode
_NO_IDS: Ids = {}


def codec_of(kind: FeatureType, path: str = "", ids: Ids = _NO_IDS) -> ValueCodec:
    """How values of this type are stored. `path` is where the type stands: a feature's name."""
    compilers: dict[type, Callable[[Any, str, Ids], ValueCodec]] = {
        ListType: _list_codec,
        TupleType: _tuple_codec,
        SetType: _set_codec,
        DictType: _dict_codec,
        StructType: _struct_codec,
        DocumentType: _document_codec,
    }
    compile_codec = compilers.get(type(kind))
    return scalar_codec(kind) if compile_codec is None else compile_codec(kind, path, ids)  # type: ignore[arg-type]


def value_encoder(path: str, kind: FeatureType, nullable: bool, ids: Ids = _NO_IDS) -> Encode:
    """An encoder whose `InvalidValue` names the feature, or the part of it, never the value."""
    return _named(codec_of(kind, path, ids).encode, path, kind, nullable)


def _named(encode: Encode, path: str, kind: FeatureType, nullable: bool) -> Encode:
    def encode_value(value: Any) -> bytes:
        if value is None and nullable:
            return NULL
        try:
            return encode(value)
        except InvalidValue:
            raise
        except ValueRefused as refused:
            raise InvalidValue(f"{path} ({kind.name}): {refused}.") from None
        except (TypeError, ValueError, OverflowError, AttributeError, RecursionError):
            given = type(value).__name__
            hint = "; declare it `| None` to allow null" if value is None else ""
            raise InvalidValue(f"{path} is {kind.name}, not {given}{hint}.") from None

    return encode_value


def _encoder(element: Element, path: str, codec: ValueCodec) -> Encode:
    return _named(codec.encode, path, element.type, element.nullable)


def _encoder_of_all(element: Element, path: str, codec: ValueCodec) -> EncodeAll:
    """Parts at once or, where one of them cannot be stored, one by one up to that."""
    encode_all = encoder_of_all(element.type, codec.encode, element.nullable)
    encode = _encoder(element, path, codec)

    def encode_parts(values: Sequence[Any]) -> list[bytes]:
        try:
            return encode_all(values)
        except InvalidValue:  # It names the part already.
            raise
        except Exception:  # noqa: BLE001 - one by one it is the same, or the error of one part.
            return list(map(encode, values))

    return encode_parts


def _attribute(kind: str, content: Any) -> Any:
    """An attribute struct with one field of its own."""
    return msgspec.defstruct(
        f"{kind}Attribute", [(kind, content | None, None)], bases=(Attribute,), frozen=True
    )


# --- lists and tuples ----------------------------------------------------------------------


def _list_codec(kind: ListType, path: str, ids: Ids) -> ValueCodec:
    element = codec_of(kind.element.type, path, ids)
    encode_elements = _encoder_of_all(kind.element, path, element)
    make = kind.make

    def encode(value: Any) -> bytes:
        if type(value) is np.ndarray:
            value = _parts_of_array(value)
        else:
            expect(make, value)
        return b'{"L":[%b]}' % b",".join(encode_elements(list(value)))

    def decode(attribute: Any) -> Any:
        if attribute.L is None:
            return read_null(attribute)
        values = element.decode_all(attribute.L)
        return values if make is list else make(values)

    return ValueCodec(encode, _attribute("L", list[element.attribute]), decode)  # type: ignore[name-defined]


def _parts_of_array(value: Any) -> list[Any]:
    """Return an array's elements; those of times are refused, since numpy makes ints of them."""
    if value.ndim == 0 or value.dtype.kind not in "biufOUS" or value.dtype.char == "g":
        raise TypeError
    found: list[Any] = value.tolist()
    return found


def _tuple_codec(kind: TupleType, path: str, ids: Ids) -> ValueCodec:
    places = range(len(kind.elements))
    codecs = [codec_of(kind.elements[i].type, f"{path}.{i}", ids) for i in places]
    encoders = [_encoder(kind.elements[i], f"{path}.{i}", codecs[i]) for i in places]

    def encode(value: Any) -> bytes:
        expect(tuple, value)
        if len(value) != len(encoders):
            raise ValueRefused(f"{len(value)} places instead of {len(encoders)}")
        parts = (encode(part) for encode, part in zip(encoders, value, strict=True))
        return b'{"L":[%b]}' % b",".join(parts)

    def decode(attribute: Any) -> Any:
        if attribute.L is None:
            return read_null(attribute)
        return tuple(c.decode(part) for c, part in zip(codecs, attribute.L, strict=True))

    parts: Any = tuple.__class_getitem__(tuple(codec.attribute for codec in codecs))
    return ValueCodec(encode, _attribute("L", parts), decode)


# --- sets ----------------------------------------------------------------------------------


def _set_codec(kind: SetType, path: str, ids: Ids) -> ValueCodec:
    """A native set where one can hold the elements; else a list, as for the empty set."""
    element = codec_of(kind.element, path, ids)
    encode_element = _named(element.encode, path, kind.element, nullable=False)
    make = kind.make
    natives = _native_sets(element.attribute)

    def encode(value: Any) -> bytes:
        expect(make, value)
        return _encode_set(sorted(map(encode_element, value)))

    def decode(attribute: Any) -> Any:
        parts = attribute.L
        for name, field in natives.items():
            native = getattr(attribute, name)
            if native is not None:
                parts = [element.attribute(**{field: part}) for part in native]
        if parts is None:
            return read_null(attribute)
        values = element.decode_all(parts)
        try:
            return make(values)
        except TypeError:  # As for a signalling NaN.
            raise DamagedItem("an element that no set can hold") from None

    return ValueCodec(encode, _set_attribute(element.attribute, natives), decode)


def _native_sets(attribute: type[Any]) -> dict[str, str]:
    """SS, NS and BS, as far as the elements may be S, N or B."""
    return {f"{field}S": field for field in attribute.__struct_fields__ if field in ("S", "N", "B")}


def _set_attribute(element: type[Any], natives: Mapping[str, str]) -> Any:
    hints = {field.name: field.type for field in msgspec.structs.fields(element)}
    fields: list[tuple[str, Any, Any]] = [("L", list[element] | None, None)]  # type: ignore[valid-type]
    fields += [(name, list[hints[field]] | None, None) for name, field in natives.items()]  # type: ignore[valid-type]
    return msgspec.defstruct("SetAttribute", fields, bases=(Attribute,), frozen=True)


def _encode_set(parts: list[bytes]) -> bytes:
    """AWS: the elements of a set are of one type, S, N or B, all different, and no set is empty.

    Empty strings and bytes stay out of native sets as well: engines differ on them. Elements
    that are stored alike are none the less different where they are NaNs.
    """
    kinds = {part[:6] for part in parts}
    kind = kinds.pop() if len(kinds) == 1 else b""
    native = kind in (b'{"S":"', b'{"N":"', b'{"B":"') and kind + b'"}' not in parts
    if not native or len(set(parts)) < len(parts):
        return b'{"L":[%b]}' % b",".join(parts)
    return b'{"%bS":[%b]}' % (kind[2:3], b",".join(part[5:-1] for part in parts))


# --- dictionaries, structs, documents ------------------------------------------------------


def _dict_codec(kind: DictType, path: str, ids: Ids) -> ValueCodec:
    element = codec_of(kind.value.type, path, ids)
    encode_values = _encoder_of_all(kind.value, path, element)

    def encode(value: Any) -> bytes:
        expect(dict, value)
        names = map(_encode_name, value)
        return _encode_map(zip(names, encode_values(list(value.values())), strict=True))

    def decode(attribute: Any) -> Any:
        if attribute.M is None:
            return read_null(attribute)
        values = element.decode_all(list(attribute.M.values()))
        return dict(zip(attribute.M, values, strict=True))

    return ValueCodec(encode, _attribute("M", dict[str, element.attribute]), decode)  # type: ignore[name-defined]


def _encode_name(name: Any) -> bytes:
    if type(name) is not str:
        raise ValueRefused("a key that is no str")
    if not name:
        raise ValueRefused("an empty key, which DynamoDB has no name for")
    try:
        return _json(name)
    except UnicodeEncodeError:
        raise ValueRefused("lone surrogates in a key, which UTF-8 cannot hold") from None


def _encode_map(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b'{"M":{%b}}' % b",".join(b"%b:%b" % pair for pair in pairs)


def _struct_codec(kind: StructType, path: str, ids: Ids) -> ValueCodec:
    known = [field for field in kind.fields if f"{path}.{field.name}" in ids]
    short = {field.name: ids[f"{path}.{field.name}"] for field in known}
    codecs = {f.name: codec_of(f.element.type, f"{path}.{f.name}", ids) for f in known}
    encoders = [
        (f, _json(short[f.name]), _encoder(f.element, f"{path}.{f.name}", codecs[f.name]))
        for f in known
    ]
    places = {field.name: f"f{i}" for i, field in enumerate(known)}  # Any text names a field.

    def encode(value: Any) -> bytes:
        if type(value) is not kind.cls:
            raise TypeError
        if kind.cls is dict:
            _refuse_other_keys(value, kind)
        return _encode_map(
            (name, encode_field(kind.get(value, field.name)))
            for field, name, encode_field in encoders
            if field.required or field.name in cast("dict[str, Any]", value)
        )

    def decode(attribute: Any) -> Any:
        if attribute.M is None:
            return read_null(attribute)
        return _make(kind, {f: getattr(attribute.M, at) for f, at in places.items()}, codecs)

    fields: list[Any] = [(at, codecs[name].attribute | None, None) for name, at in places.items()]
    rename = {at: short[name] for name, at in places.items()}
    content = msgspec.defstruct("Fields", fields, rename=rename, frozen=True)
    return ValueCodec(encode, _attribute("M", content), decode)


def _refuse_other_keys(value: Any, kind: StructType) -> None:
    known = {field.name for field in kind.fields}
    if not value.keys() <= known or any(f.required and f.name not in value for f in kind.fields):
        raise ValueRefused("keys that its TypedDict does not have, or lacks")


def _make(kind: StructType, content: Mapping[str, Any], codecs: Mapping[str, ValueCodec]) -> Any:
    """A value of the user's class; fields that were not stored get their default, or None."""
    stored = {name: a for name, a in content.items() if a is not None}
    values = {name: codecs[name].decode(attribute) for name, attribute in stored.items()}
    try:
        for field in kind.fields:
            if field.name not in values and (field.default or field.required):
                values[field.name] = field.default() if field.default else None
        return kind.make(values)
    except Exception as error:
        what = type(error).__name__
        raise DamagedItem(f"{kind.cls.__name__} cannot be made of it ({what})") from error


_TIMESTAMPS = (b"\xd6\xff", b"\xd7\xff", b"\xc7\x0c\xff")
"""What msgpack writes before a timestamp, and now and then in the midst of something else."""


def _check_moments(value: Any) -> None:
    """Refuse what comes back as another moment, or not at all."""
    if isinstance(value, msgpack.Timestamp):
        raise ValueRefused("a msgpack.Timestamp, which is read as a datetime")
    if isinstance(value, datetime):
        microseconds_utc(value)
    elif isinstance(value, dict):
        for pair in value.items():
            _check_moments(list(pair))
    elif isinstance(value, list):
        for part in value:
            _check_moments(part)


def _document_codec(kind: DocumentType, path: str, ids: Ids) -> ValueCodec:
    def encode(value: Any) -> bytes:
        packed: bytes = msgpack.packb(value, strict_types=True, datetime=True)
        if any(mark in packed for mark in _TIMESTAMPS):
            _check_moments(value)
        return b'{"B":%b}' % _json(packed)

    def decode(attribute: Any) -> Any:
        if attribute.B is None:
            return read_null(attribute)
        try:
            return msgpack.unpackb(attribute.B, strict_map_key=False, timestamp=3)
        except Exception as error:
            raise DamagedItem("no msgpack document") from error

    return ValueCodec(encode, Binary, decode)
