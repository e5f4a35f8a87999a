"""Real engines on this machine, for your own tests.

```python
from chalk_online_store.testing import Dynoxide, create_table

with Dynoxide() as engine:
    create_table(engine.endpoint_url, "features-of-a-test")
    url = engine.url("features-of-a-test")
    store = OnlineStore.open(url, schema=[User], session=engine.session())
```
"""

from chalk_online_store.testing.engines import (
    Dynoxide,
    Engine,
    EngineNotFound,
    EngineNotStarted,
    Moto,
    create_table,
)

__all__ = ["Dynoxide", "Engine", "EngineNotFound", "EngineNotStarted", "Moto", "create_table"]
