"""Feast's own online-store tests against `ChalkOnlineStore`: `make test-feast FEAST=DIR`.

Feast's tests import this module for the stores that they run against. They choose stores by
name, and by no other way: "redis" admits the tests of event-time order, TTL, clean-up and async
reads, "sqlite" those of types, "mongodb" the async push. All three are our store here.
"""

from __future__ import annotations

import os

from tests.universal.feature_repos.universal.data_sources.file import (  # type: ignore[import-not-found]
    FileDataSourceCreator,
)

# Feast's tests have chosen by now what they import; with "True" three of them would return at
# once, and so pass without a check.
os.environ["FEAST_IS_LOCAL_TEST"] = "False"

_STORE = {
    "type": "chalk_online_store.integrations.feast.ChalkOnlineStore",
    "url": os.environ["CHALK_FEAST_URL"],
}

AVAILABLE_OFFLINE_STORES = [("local", FileDataSourceCreator)]
AVAILABLE_ONLINE_STORES = dict.fromkeys(("sqlite", "redis", "mongodb"), (_STORE, None))
