"""Carries `valkey.commands.Request`s to a server by redis-py, for threads and for asyncio.

redis-py makes the connections and knows the protocol; it is imported when the first transport is
made. Pools are our own, so that an attempt ends with its time, and nothing is tried twice that
the layers above do not know of.
"""

from chalk_online_store.drivers.valkey.aio import AsyncValkeyTransport
from chalk_online_store.drivers.valkey.blocking import ValkeyTransport
from chalk_online_store.drivers.valkey.cluster import AsyncClusterTransport, ClusterTransport

__all__ = ["AsyncClusterTransport", "AsyncValkeyTransport", "ClusterTransport", "ValkeyTransport"]
