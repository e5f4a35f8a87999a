"""The persistence service: consume messages from a bus and write their rows.

`PersistenceLoop` is the service without a bus, a clock or a message format of its own.
`chalk_online_store.integrations.persistence` has those.
"""

from chalk_online_store.writer.service.bus import Bus, Listener, Message, Partition
from chalk_online_store.writer.service.dead_messages import (
    DeadMessage,
    DeadMessageFile,
    DeadMessages,
)
from chalk_online_store.writer.service.loop import (
    DecodedRow,
    LoopStats,
    PersistenceLoop,
    ServiceSettings,
)

__all__ = [
    "Bus",
    "DeadMessage",
    "DeadMessageFile",
    "DeadMessages",
    "DecodedRow",
    "Listener",
    "LoopStats",
    "Message",
    "Partition",
    "PersistenceLoop",
    "ServiceSettings",
]
