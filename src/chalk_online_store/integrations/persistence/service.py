"""The persistence service: a bus, a store and a writer, put together from a configuration."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from chalk_online_store.errors import InvalidURL, InvalidValue, RowsAbandoned
from chalk_online_store.integrations.persistence.config import ServiceConfig, read_options
from chalk_online_store.logs import event
from chalk_online_store.schema import seconds
from chalk_online_store.store import OnlineStore
from chalk_online_store.writer.ledger import DeadLetter, DeadLetterFile
from chalk_online_store.writer.service import (
    Bus,
    DeadMessageFile,
    DeadMessages,
    LoopStats,
    PersistenceLoop,
)
from chalk_online_store.writer.writer import PersistenceWriter

LOG = logging.getLogger("chalk_online_store.service")

_CLOSE_SECONDS = 2.0
"""How long the writer has to end after the loop has drained it."""


@dataclass(frozen=True, slots=True)
class BusTarget:
    """A bus URL: `kafka://HOST:PORT[,HOST:PORT]/TOPIC[,TOPIC]` or `sqs:///QUEUE?region=REGION`."""

    scheme: str
    servers: str
    topics: tuple[str, ...]
    options: dict[str, str]


_OPTIONS = {"kafka": {"group"}, "sqs": {"region", "endpoint_url"}}


def parse_bus_url(url: str) -> BusTarget:
    """Parse the URL of a bus. Raises `InvalidURL`."""
    parts = urlsplit(url)
    known = _OPTIONS.get(parts.scheme)
    if known is None:
        raise InvalidURL("The URL of a bus begins with kafka:// or sqs://.")
    if "@" in parts.netloc:
        raise InvalidURL("The URL of a bus has no credentials. Set them in the configuration.")
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    unknown = options.keys() - known
    if unknown or parts.fragment:
        raise InvalidURL(f"A {parts.scheme}:// URL has the options {', '.join(sorted(known))}.")
    if parts.scheme == "kafka" and not parts.netloc:
        raise InvalidURL("A kafka:// URL names brokers, as in kafka://broker:9092/topic.")
    topics = tuple(filter(None, map(unquote, parts.path.strip("/").split(","))))
    return BusTarget(parts.scheme, parts.netloc, topics, options)


def open_bus(target: BusTarget, config: ServiceConfig) -> Bus:
    """Return the bus of a URL, which consumes the configured topics. It connects at its start.

    Raises `InvalidValue`, `MissingDependency`, `BusFailed`.
    """
    topics = [topic.name for topic in config.topics]
    unknown = set(target.topics) - set(topics)
    if unknown:
        raise InvalidValue(f"Topic {min(unknown)!r} of the URL has no [[topics]] entry.")
    topics = [topic for topic in topics if topic in target.topics] if target.topics else topics
    if target.scheme == "sqs":
        from chalk_online_store.integrations.persistence.sqs import SqsBus

        return SqsBus(topics, **target.options)
    from chalk_online_store.integrations.persistence.kafka import KafkaBus

    options = read_options(config.kafka.common | config.kafka.consumer)
    group = target.options.get("group", config.group)
    return KafkaBus(target.servers, topics, group, options)


def open_dead_letters(target: BusTarget, config: ServiceConfig) -> DeadMessages:
    """Return the destination of dead messages. Raises `BusFailed`, `MissingDependency`."""
    if config.dead_letters.file:
        return DeadMessageFile(config.dead_letters.file)
    if target.scheme == "sqs":
        from chalk_online_store.integrations.persistence.sqs import SqsDeadLetters

        return SqsDeadLetters(config.dead_letters.topic, **target.options)
    from chalk_online_store.integrations.persistence.kafka import KafkaDeadLetters

    options = read_options(config.kafka.common | config.kafka.producer)
    return KafkaDeadLetters(target.servers, config.dead_letters.topic, options)


def check_service(bus_url: str, config: ServiceConfig, directory: Path) -> None:
    """Check everything that can be checked without a connection: URLs, schemas, decoders.

    Raises as `open_service` does.
    """
    target = parse_bus_url(bus_url)
    with OnlineStore.open("sqlite://", schema=_namespaces(config)) as store:
        config.decoder(store.core, directory)
    open_bus(target, config)
    read_options(config.kafka.common | config.kafka.producer)


class PersistenceService:
    """A running service. `run` consumes until `stop`; `stop` may be called in a signal handler."""

    def __init__(
        self, loop: PersistenceLoop, store: OnlineStore, writer: PersistenceWriter
    ) -> None:
        self._loop = loop
        self._store = store
        self._writer = writer
        self.port: int | None = None

    def run(self) -> None:
        """Consume until `stop`. Raises `BusFailed`."""
        LOG.info("Started.", extra=event("service.started"))
        self._loop.run()
        stats = self._loop.stats()
        LOG.info(
            "Stopped after %d messages and %d dead letters.", stats.messages, stats.dead,
            extra=event("service.stopped", messages=stats.messages, dead=stats.dead),
        )  # fmt: skip

    def stop(self) -> None:
        """Let `run` write and commit what is pending, and return."""
        self._loop.stop()

    def stats(self) -> LoopStats:
        """Return the counts of the loop."""
        return self._loop.stats()


@contextmanager
def open_service(
    bus_url: str,
    config: ServiceConfig,
    *,
    url: str = "",
    directory: Path | None = None,
) -> Iterator[PersistenceService]:
    """Open the store, the writer and the endpoints of a service, and close them at the end.

    `url` names the store, if the configuration does not; files are relative to `directory`
    (default: the working directory). Raises `InvalidURL`, `InvalidValue`, `InvalidSchema`,
    `MissingDependency`, `BusFailed`, `SpoolError`, and what the first request to the store raises.
    """
    directory = Path() if directory is None else directory
    target = parse_bus_url(bus_url)
    with ExitStack() as stack:
        bus = open_bus(target, config)
        store, writer = open_store_and_writer(stack, config, url)
        decode = config.decoder(store.core, directory)
        letters = open_dead_letters(target, config)
        loop = PersistenceLoop(bus, writer, decode, letters, config.settings())
        service = PersistenceService(loop, store, writer)
        if config.http is not None:
            from chalk_online_store.integrations.persistence.endpoint import make_app, serving

            stuck_after = seconds(config.http.stuck_after, "stuck_after")
            app = make_app(store, loop.stats, writer.stats, stuck_after)
            server = serving(app, config.http.host, config.http.port)
            service.port = stack.enter_context(server)
        yield service


def open_store_and_writer(
    stack: ExitStack, config: ServiceConfig, url: str
) -> tuple[OnlineStore, PersistenceWriter]:
    """Open both until the end of `stack`. Raises as `open_service` does."""
    store = stack.enter_context(OnlineStore.open(config.store_url(url), _namespaces(config)))
    store.core.of_results()
    store.warm()
    writer = _open_writer(store, config)
    stack.callback(_close_writer, writer)
    return store, writer


def _namespaces(config: ServiceConfig) -> Sequence[Any]:
    """Return each namespace once: several topics can have the same."""
    return list({namespace.name: namespace for namespace in config.schema().values()}.values())


def _open_writer(store: OnlineStore, config: ServiceConfig) -> PersistenceWriter:
    spool = config.spool
    if spool is None:
        return PersistenceWriter(store, config.writing(), dead_letters=_ignore)
    # Rows that a process left in the spool are not messages any more. If the table refuses one
    # of them, only the writer knows it.
    rows = DeadLetterFile(f"{spool.path}.dead-letters.jsonl")
    return PersistenceWriter(
        store,
        config.writing(),
        spool=spool.path,
        spool_bytes=spool.max_bytes,
        dead_letters=rows,
    )


def _ignore(_letters: Sequence[DeadLetter]) -> None:
    """Drop a dead row: the loop stores its message. At a stop, its message is delivered again."""


def _close_writer(writer: PersistenceWriter) -> None:
    with suppress(RowsAbandoned):  # Their messages are not acknowledged.
        writer.close(_CLOSE_SECONDS)


class JsonLines(logging.Formatter):
    """Formats log records as JSON lines, with the fields of the library's events."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        found: dict[str, Any] = {
            "timestamp": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        found |= {k: v for k, v in record.__dict__.items() if k.startswith(_EVENT_FIELDS)}
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(found, enc_hook=str).decode()


_EVENT_FIELDS = ("event.", "chalk.", "error.", "cloud.", "file.", "http.", "aws.")
