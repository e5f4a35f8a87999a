"""Real engines on this machine, their faults, and a Global Table of them, for your own tests.

```python
from chalk_online_store.testing import Dynoxide, create_table

with Dynoxide() as engine:
    create_table(engine.endpoint_url, "features-of-a-test")
    url = engine.url("features-of-a-test")
    store = OnlineStore.open(url, schema=[User], session=engine.session())
```

`FaultProxy` stands before an engine and fails as networks and engines do, and `ValkeyFaultProxy`
before a Valkey server. `LocalGlobalTable` is
several engines that replicate. `chalk_online_store.testing.fixtures` has both for pytest.
"""

from chalk_online_store.testing.engines import (
    Dynoxide,
    Engine,
    EngineNotFound,
    EngineNotStarted,
    Ministack,
    Moto,
    create_table,
)
from chalk_online_store.testing.local_global_table import LocalGlobalTable, NotReplicated, Region
from chalk_online_store.testing.proxy import FaultProxy, ProxyStats, ValkeyFaultProxy
from chalk_online_store.testing.valkey import Valkey
from chalk_online_store.testing.valkey_groups import ValkeyCluster, ValkeyReplicas, ValkeySentinels
from chalk_online_store.testing.world.faults import (
    AcceptThenClose,
    Blackhole,
    ClockSkew,
    DamagedCRC,
    Fault,
    ForgottenConnections,
    LateDuplicates,
    Latency,
    LostAnswer,
    LostRequest,
    Refused,
    Reset,
    ServerFault,
    Slowdown,
    SlowDrip,
    SwappedResponses,
    Throttling,
    Truncated,
    Unprocessed,
)

__all__ = [
    "AcceptThenClose",
    "Blackhole",
    "ClockSkew",
    "DamagedCRC",
    "Dynoxide",
    "Engine",
    "EngineNotFound",
    "EngineNotStarted",
    "Fault",
    "FaultProxy",
    "ForgottenConnections",
    "LateDuplicates",
    "Latency",
    "LocalGlobalTable",
    "LostAnswer",
    "LostRequest",
    "Ministack",
    "Moto",
    "NotReplicated",
    "ProxyStats",
    "Refused",
    "Region",
    "Reset",
    "ServerFault",
    "SlowDrip",
    "Slowdown",
    "SwappedResponses",
    "Throttling",
    "Truncated",
    "Unprocessed",
    "Valkey",
    "ValkeyCluster",
    "ValkeyFaultProxy",
    "ValkeyReplicas",
    "ValkeySentinels",
    "create_table",
]
