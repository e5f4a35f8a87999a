"""A query server: features over HTTP, from a store that lives as long as the server does.

    export CHALK_ONLINE_STORE_URL=sqlite:///features.db
    uvicorn --app-dir examples query_server:app

    curl localhost:8000/features --json '{"keys": [1, 2], "features": ["email", "risk"]}'
    curl localhost:8000/healthz

On SIGTERM uvicorn takes no more connections, lets the requests end that are under way, and then
ends the lifespan, which closes the store. So no request loses its store half-way.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypedDict

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.routing import Route

from chalk_online_store import (
    AsyncOnlineStore,
    InvalidKey,
    Status,
    UnknownFeature,
    feature,
    features,
)
from chalk_online_store.integrations import health


@features(max_staleness="30d")
class User:
    """What is known of a user."""

    id: int
    email: str | None
    visits: int
    risk: float = feature(max_staleness="1h", group="realtime")


class State(TypedDict):
    """What requests find in `request.state`."""

    store: AsyncOnlineStore
    health: health.ASGIApp


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[State]:
    """Open the store, and have its connections ready before the first request."""
    url = os.environ["CHALK_ONLINE_STORE_URL"]
    async with AsyncOnlineStore.open(url, schema=[User], timeout=2.0) as store:
        await store.warm()
        yield {"store": store, "health": health.asgi(store)}


async def healthz(request: Request) -> health.ASGIApp:
    """Whether the store can serve: 200 or 503. A route answers with any ASGI app."""
    endpoint: health.ASGIApp = request.state.health
    return endpoint


app = FastAPI(title="Features", lifespan=lifespan, routes=[Route("/healthz", healthz)])


class Query(BaseModel):
    """What is asked for."""

    keys: list[int] = Field(max_length=1000)
    features: list[str] | None = None


class Column(BaseModel):
    """One feature: a value and a status for each key, in the order of the keys.

    JSON has no NaN and no infinity: there the value is null, while the status is "hit".
    """

    values: list[Any]
    statuses: list[Status]


@app.post("/features")
async def read(query: Query, request: Request) -> dict[str, Column]:
    """Read features. What could not be read in time has the status "failed", and no value."""
    store: AsyncOnlineStore = request.state.store
    rows = await store.read(User, query.keys, query.features)
    return {
        name: Column(values=[row.get(name) for row in rows], statuses=rows.statuses(name))
        for name in rows.features
    }


@app.exception_handler(UnknownFeature)
@app.exception_handler(InvalidKey)
async def refuse(_: Request, error: Exception) -> JSONResponse:
    """What the caller got wrong: these errors' texts hold no values, so they may be told."""
    return JSONResponse({"detail": str(error)}, status_code=422)
