"""A query server that publishes its results; the persistence service stores them.

    pip install 'chalk-online-store[kafka]' fastapi uvicorn
    export CHALK_ONLINE_STORE_URL='dynamodb:///features?region=us-east-1'
    export KAFKA_BROKERS=localhost:9092
    uvicorn --app-dir examples/persistence_service query_server:app
    cd examples/persistence_service
    chalk-online-store persist kafka://localhost:9092 --config writer.toml

The first query computes the score and publishes it. The service writes it into the table, and
further queries with the same inputs read it from there. The server never waits for a write.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypedDict

from confluent_kafka import Producer
from fastapi import FastAPI, Request
from pydantic import BaseModel

from chalk_online_store import AsyncOnlineStore, features
from chalk_online_store.integrations.persistence import encode_result

TOPIC = "query-results"
VERSION = "1"
FLUSH_SECONDS = 10.0


@features(max_staleness="30d")
class Account:
    """A store needs at least one namespace; results do not."""

    id: int
    balance: float


class State(TypedDict):
    """What requests find in `request.state`."""

    store: AsyncOnlineStore
    producer: Producer


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[State]:
    """Open the store and the producer, and deliver all results before the end."""
    producer = Producer({"bootstrap.servers": os.environ["KAFKA_BROKERS"], "linger.ms": 5})
    url = os.environ["CHALK_ONLINE_STORE_URL"]
    async with AsyncOnlineStore.open(url, schema=[Account], timeout=2.0) as store:
        await store.warm()
        yield {"store": store, "producer": producer}
    producer.flush(FLUSH_SECONDS)


app = FastAPI(title="Scores", lifespan=lifespan)


class Question(BaseModel):
    """The inputs of a score."""

    user: int
    amount: int


@app.post("/score")
async def score(question: Question, request: Request) -> dict[str, Any]:
    """Return the score of a payment, from the table if it is there."""
    inputs = question.model_dump()
    store: AsyncOnlineStore = request.state.store
    result = await store.read_result("score", inputs, version=VERSION)
    if result.features is not None:
        return {"score": result["score"], "from": "table"}
    found = compute(question)
    publish(request.state.producer, inputs, {"score": found})
    return {"score": found, "from": "computation"}


def compute(question: Question) -> float:
    """Stand in for a model."""
    return min(1.0, question.amount / 1000 + question.user % 7 / 70)


def publish(producer: Producer, inputs: dict[str, Any], found: dict[str, Any]) -> None:
    """Hand a result to the producer's queue. A full queue costs a later computation, no error."""
    body = encode_result(
        "score", inputs, found, version=VERSION, max_staleness="1h", observed_at=datetime.now(UTC)
    )
    try:
        producer.produce(TOPIC, body, json.dumps(inputs, sort_keys=True).encode())
    except BufferError:
        logging.getLogger(__name__).warning("The queue of the producer is full.")
    producer.poll(0)  # Serves the client's callbacks; does not wait.
