"""The configuration of the persistence service: a TOML file.

    group = "features"

    [[topics]]
    name = "user-features"
    schema = "app:User"
    observed_at = "ts"

    [dead_letters]
    topic = "features.dead"

docs/persistence-service.md lists all settings.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from chalk_online_store.errors import InvalidValue
from chalk_online_store.integrations.modules import load_namespace, load_object
from chalk_online_store.integrations.persistence.messages import (
    Decoder,
    FunctionDecoder,
    ReadObject,
    ResultDecoder,
    TopicDecoder,
    Unit,
    avro_reader,
    protobuf_reader,
    read_json_object,
    unframed,
)
from chalk_online_store.schema import Namespace
from chalk_online_store.writer.service import DecodedRow, Message, ServiceSettings
from chalk_online_store.writer.settings import Writing

if TYPE_CHECKING:
    from chalk_online_store.operations.core import Core

D = TypeVar("D")

_FIXED = {"when_full": "raise", "ordering": "event"}
"""Settings of the writer that the service depends on."""


class EnvironmentVariable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A value that is read from the environment: `{ env = "KAFKA_PASSWORD" }`."""

    env: str

    def read(self) -> str:
        """Return the value. Raises `InvalidValue` if the variable is not set."""
        found = os.environ.get(self.env)
        if found is None:
            raise InvalidValue(f"The environment variable {self.env} is not set.")
        return found


Option = str | int | float | bool | EnvironmentVariable


class TopicConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the messages of a topic become rows."""

    name: str
    schema: str = ""
    results: bool = False
    format: Literal["json", "avro", "protobuf", "function"] = "json"
    observed_at: str = "timestamp"
    observed_at_unit: Unit | None = None
    time_zone: str | None = None
    key: list[str] = []
    record: str = ""
    rename: dict[str, str] = {}
    unknown_members: Literal["dead_letter", "ignore"] = "dead_letter"
    tombstones: Literal["dead_letter", "skip"] = "dead_letter"
    framing: Literal["none", "registry"] = "none"
    avro_schema: str = ""
    message: str = ""
    function: str = ""

    def __post_init__(self) -> None:
        needed = {"avro": "avro_schema", "protobuf": "message", "function": "function"}
        for kind, setting in needed.items():
            if bool(getattr(self, setting)) != (self.format == kind):
                raise ValueError(f'set {setting} if, and only if, format is "{kind}"')
        if self.results == bool(self.schema):
            raise ValueError("set either schema = 'module:Class' or results = true")
        if self.results and self.format != "json":
            raise ValueError('query results have the format "json"')
        if not self.observed_at:
            raise ValueError('observed_at is "timestamp", "header:NAME" or a member')

    def namespace(self) -> Namespace | None:
        """Import the topic's namespace; None for query results. Raises `InvalidSchema`."""
        return load_namespace(self.schema, "schema") if self.schema else None


class DeadLetterConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where messages go that can never be written: a topic (or queue) of the bus, or a file."""

    topic: str = ""
    file: str = ""

    def __post_init__(self) -> None:
        if bool(self.topic) == bool(self.file):
            raise ValueError("set either topic or file")


class SpoolConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A spool, which is for outages of the table that outlast the topic's retention."""

    path: str
    max_bytes: int = 1 << 30


class KafkaConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Properties of librdkafka: of both clients, and of the consumer and the producer alone."""

    common: dict[str, Option] = {}
    consumer: dict[str, Option] = {}
    producer: dict[str, Option] = {}


class HttpConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The address of /healthz, /readyz and /metrics; the loop is stuck after `stuck_after`."""

    host: str = "127.0.0.1"
    port: int = 9464
    stuck_after: str = "60s"


class ServiceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file."""

    topics: list[TopicConfig]
    dead_letters: DeadLetterConfig
    url: str | EnvironmentVariable = ""
    group: str = ""
    service: dict[str, Any] = {}
    writer: dict[str, Any] = {}
    spool: SpoolConfig | None = None
    kafka: KafkaConfig = KafkaConfig()
    http: HttpConfig | None = None

    def __post_init__(self) -> None:
        names = [topic.name for topic in self.topics]
        if not names or len(set(names)) < len(names):
            raise ValueError("list each topic once, and at least one")
        if self.dead_letters.topic in names:
            raise ValueError("the dead-letter topic must not be consumed")
        if self.settings().commit_at == "durable" and self.spool is None:
            raise ValueError('commit_at = "durable" needs a [spool]')
        self.writing()

    def settings(self) -> ServiceSettings:
        """Return the settings of the loop. Raises `InvalidValue`."""
        return _settings(ServiceSettings, self.service, "service")

    def writing(self) -> Writing:
        """Return the settings of the writer. Raises `InvalidValue`."""
        given = _settings(Writing, self.writer, "writer")
        for name in _FIXED.keys() & self.writer.keys():
            raise InvalidValue(f"[writer] {name} is set by the service. Remove it.")
        return replace(given, when_full="raise")

    def store_url(self, default: str = "") -> str:
        """Return the URL of the store. Raises `InvalidValue` if there is none."""
        found = self.url.read() if isinstance(self.url, EnvironmentVariable) else self.url
        if not (found or default):
            raise InvalidValue("There is no URL of a store. Pass --url, or set url in the file.")
        return default or found

    def schema(self) -> dict[str, Namespace]:
        """Import the namespaces of all topics, by the topic. Raises `InvalidSchema`."""
        found = ((topic.name, topic.namespace()) for topic in self.topics)
        return {name: namespace for name, namespace in found if namespace is not None}

    def decoder(self, core: Core, directory: Path) -> Decoder:
        """Return the decoder of all topics; Avro schemas are relative to `directory`.

        Raises `InvalidSchema`, `InvalidValue`, `MissingDependency`.
        """
        return Decoder(
            {topic.name: _topic_decoder(topic, core, directory) for topic in self.topics}
        )


def load_config(path: str | Path) -> ServiceConfig:
    """Read a configuration file. Raises `InvalidValue` naming the setting, `OSError`."""
    text = Path(path).read_bytes()
    try:
        return msgspec.convert(tomllib.loads(text.decode()), ServiceConfig)
    except (msgspec.ValidationError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidValue(f"{path}: {error}.") from None


def _settings(cls: type[D], given: Mapping[str, Any], table: str) -> D:
    assert is_dataclass(cls)
    unknown = given.keys() - {field.name for field in fields(cls)}
    if unknown:
        raise InvalidValue(f"[{table}] has no setting {min(unknown)!r}.")
    return cls(**given)


def _topic_decoder(
    topic: TopicConfig, core: Core, directory: Path
) -> Callable[[Message], Iterable[DecodedRow]]:
    namespace = topic.namespace()
    if namespace is None:
        return ResultDecoder(topic, core)
    namespace = core.schema.get(namespace.name, namespace)
    if topic.format == "function":
        function = load_object(topic.function, "function")
        if not callable(function):
            raise InvalidValue(f"function {topic.function}: it cannot be called.")
        return FunctionDecoder(topic, namespace, function)
    return TopicDecoder(topic, namespace, _reader(topic, directory))


def _reader(topic: TopicConfig, directory: Path) -> ReadObject:
    framed = topic.framing == "registry"
    match topic.format:
        case "avro":
            path = directory / topic.avro_schema
            try:
                schema = json.loads(path.read_bytes())
            except ValueError:
                raise InvalidValue(f"{path} is not JSON.") from None
            return avro_reader(schema, framed=framed)
        case "protobuf":
            return protobuf_reader(load_object(topic.message, "message"), framed=framed)
    if not framed:
        return read_json_object
    return lambda value: read_json_object(unframed(value))


def read_options(options: Mapping[str, Option]) -> dict[str, Any]:
    """Return options with variables of the environment in place. Raises `InvalidValue`."""
    return {
        name: value.read() if isinstance(value, EnvironmentVariable) else value
        for name, value in options.items()
    }
