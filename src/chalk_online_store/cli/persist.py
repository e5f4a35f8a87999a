"""`chalk-online-store persist`."""

from __future__ import annotations

import logging
import signal
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from chalk_online_store.cli import require
from chalk_online_store.cli.options import Url
from chalk_online_store.cli.terminal import say


class LogFormat(StrEnum):
    """How log records are written to standard error."""

    json = "json"
    text = "text"


class LogLevel(StrEnum):
    """The least severe log records that are written."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


def persist(
    bus: Annotated[
        str,
        typer.Argument(
            metavar="BUS",
            help="The bus: kafka://HOST:PORT,HOST:PORT/TOPIC,TOPIC?group=GROUP or "
            "sqs:///QUEUE?region=REGION. Default topics: all of the configuration.",
        ),
    ],
    config: Annotated[Path, typer.Option(help="The configuration file, in TOML.")],
    url: Url = "",
    check: Annotated[
        bool, typer.Option("--check", help="Check the configuration, and exit.")
    ] = False,
    log_format: Annotated[
        LogFormat, typer.Option(help="The format of the log on standard error.")
    ] = LogFormat.json,
    log_level: Annotated[
        LogLevel, typer.Option(help="The least severe log records that are written.")
    ] = LogLevel.info,
) -> None:
    """Consume messages from a bus, and write their rows into a table, until SIGTERM or Ctrl-C.

    A message is acknowledged when its rows are written, or when it is stored as a dead letter.
    Messages are delivered again after a crash, which changes nothing: the newest observed-at wins.
    Several processes can share a group. At SIGTERM, pending rows are written first. Exits with
    status 0 after SIGTERM, and 1 if the bus refuses the service.

    Example: chalk-online-store persist kafka://localhost:9092 --config writer.toml
    """
    require("kafka", "prometheus_client")
    from chalk_online_store.integrations.persistence import (
        check_service,
        load_config,
        open_service,
    )

    loaded = load_config(config)
    if check:
        check_service(bus, loaded, config.parent)
        say(f"{config} is valid.")
        return
    _log_to_stderr(log_format, log_level)
    with open_service(bus, loaded, url=url, directory=config.parent) as service:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: service.stop())
        service.run()


def _log_to_stderr(log_format: LogFormat, level: LogLevel) -> None:
    from chalk_online_store.integrations.persistence.service import JsonLines

    handler = logging.StreamHandler()
    if log_format is LogFormat.json:
        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    # Other libraries log at WARNING at most: botocore's DEBUG records hold signed requests.
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("chalk_online_store").setLevel(level.value.upper())
