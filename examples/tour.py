"""A tour of the library, cell by cell: open it as a notebook, or run `python examples/tour.py`.

Nothing has to be there: the store is SQLite in memory. With another URL in
CHALK_ONLINE_STORE_URL the same cells run on a table of DynamoDB.
"""

# %% [markdown]
# ## Declare features
# A class is a namespace, its annotations are its features. `max_staleness` is how old a value may
# be and still be served; features that are written together share a `group`, which is one item.

# %%
import os
from datetime import UTC, datetime, timedelta
from typing import Annotated

import numpy as np

from chalk_online_store import (
    InvalidValue,
    LRUCache,
    OnlineStore,
    PersistenceWriter,
    Vector,
    explain,
    feature,
    features,
)


@features(max_staleness="30d")
class User:
    """What is known of a user."""

    id: int
    email: str | None
    visits: int
    embedding: Annotated[np.ndarray, Vector[4]]  # half floats
    risk: float = feature(max_staleness="1h", group="realtime")


# %% [markdown]
# ## Write and read
# A row names what it knows; what it does not name stays as it was.

# %%
url = os.environ.get("CHALK_ONLINE_STORE_URL", "sqlite://")
store = OnlineStore.open(url, schema=[User])
now = datetime.now(UTC)

ada = {"id": 1, "email": "ada@example.com", "visits": 3, "embedding": [1, 2, 3, 4]}
store.write(User, [ada, {"id": 2, "email": None}], observed_at=now)
store.write(User, [{"id": 1, "risk": 0.25}], observed_at=now - timedelta(hours=2))

rows = store.read(User, [1, 2, 3])
print(rows.to_pylist())

# %% [markdown]
# ## Every value has a status
# Nothing is ever guessed: `hit`, `null`, `missing`, `stale` or `failed`.

# %%
for row in rows:
    print(row.key, {name: str(row.status(name)) for name in rows.features})

# %% [markdown]
# Two hours are too old for `risk`; a single read may see that otherwise.

# %%
print(store.read(User, [1], ["risk"], max_staleness={"risk": "1d"})[0]["risk"])

# %% [markdown]
# ## Columns
# As lists, numpy arrays, Arrow tables; or as instances of your own classes.

# %%
print(rows.to_dict()["visits"])
print(rows.to_numpy("visits", missing=0))
print(rows[0]["embedding"])

# %% [markdown]
# ## Event time wins
# A late, older value never overwrites a newer one, whoever writes it.

# %%
late = store.write(User, [{"id": 1, "visits": 2}], observed_at=now - timedelta(minutes=5))
print(late.superseded, "superseded;", store.read(User, [1])[0]["visits"], "visits")

# %% [markdown]
# ## What is wrong is refused
# Before anything is sent, and with the way out; the message holds no values.

# %%
try:
    store.write(User, [{"id": 1, "visits": "four"}])
except InvalidValue as error:
    print(error)

# %% [markdown]
# ## What it costs
# Every call reports the capacity units it took, and `explain` tells where the bytes of a row go.

# %%
print(store.read(User, [1]).report)
print(explain(User, ada))

# %% [markdown]
# ## Writing in the background
# `submit` takes microseconds. With a `spool`, rows survive the end of the process.

# %%
with PersistenceWriter(store) as writer:
    for visits in range(4, 100):
        writer.submit(User, [{"id": 1, "visits": visits}])
    writer.flush(timeout=10)
    print(writer.stats().written, "rows written by", writer.stats().changes, "changes")

print(store.read(User, [1], ["visits"])[0]["visits"])

# %% [markdown]
# ## A cache
# One line, and a read of the same key costs nothing for as long as the `ttl` lets it.

# %%
cache = LRUCache(max_size=10_000, ttl="30s", store_cache_misses=True)
with OnlineStore.open(url, schema=[User], lru_cache=cache) as cached:
    cached.write(User, [ada])
    cached.read(User, [1], ["email"])
    print(cached.read(User, [1], ["email"]).report.cache_hits, "of 1 from the cache")

# %% [markdown]
# ## Deleting
# A delete is a write in time, too.

# %%
store.delete(User, [1, 2])
print(store.read(User, [1, 2], ["visits"]).statuses("visits"))
store.close()
