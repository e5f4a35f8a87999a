"""The persistence service: consume messages from Kafka or SQS and write their rows.

    from chalk_online_store.integrations.persistence import load_config, open_service

    with open_service("kafka://broker:9092", load_config("writer.toml"), url=url) as service:
        service.run()

The command `chalk-online-store persist` does the same; docs/persistence-service.md describes both.
"""

from chalk_online_store.integrations.persistence.config import ServiceConfig, load_config
from chalk_online_store.integrations.persistence.messages import encode_result
from chalk_online_store.integrations.persistence.service import (
    PersistenceService,
    check_service,
    open_service,
)
from chalk_online_store.writer.service import DecodedRow, Message

__all__ = [
    "DecodedRow",
    "Message",
    "PersistenceService",
    "ServiceConfig",
    "check_service",
    "encode_result",
    "load_config",
    "open_service",
]
