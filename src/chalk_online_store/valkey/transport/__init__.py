"""Carries `valkey.commands.Request`s to a server, for threads and for asyncio.

The connections are plain sockets and the protocol is `valkey.resp`: see docs/decisions.
"""

from chalk_online_store.valkey.transport.aio import AsyncValkeyTransport
from chalk_online_store.valkey.transport.blocking import ValkeyTransport
from chalk_online_store.valkey.transport.cluster import AsyncClusterTransport, ClusterTransport

__all__ = ["AsyncClusterTransport", "AsyncValkeyTransport", "ClusterTransport", "ValkeyTransport"]
