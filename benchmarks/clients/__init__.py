"""Who takes part: one module a client library, each class one way to use it."""

from __future__ import annotations

from importlib import import_module

from benchmarks.clients.base import Client

PLACES = {
    "OnlineStore": "ours:Store",
    "OnlineStore, columns": "ours:StoreColumns",
    "AsyncOnlineStore": "ours:AsyncStore",
    "AsyncOnlineStore, columns": "ours:AsyncStoreColumns",
    "AsyncOnlineStore, uvloop": "ours:UvloopStore",
    "OnlineStore, pure Python": "ours:PureStore",
    "OnlineStore, pure Python, columns": "ours:PureStoreColumns",
    "dynamoxy": "with_dynamoxy:Dynamoxy",
    "pydynox": "with_pydynox:Pydynox",
    "aiodynamo": "with_aiodynamo:Aiodynamo",
    "aioboto3 client": "with_aioboto3:Aioboto3Client",
    "boto3 client": "with_boto3:Boto3Client",
    "boto3 resource": "with_boto3:Boto3Resource",
    "PynamoDB": "with_pynamodb:PynamoDB",
    "Feast store": "with_feast:FeastStore",
    "Feast get_online_features": "with_feast:FeastFeatures",
    "floor": "floor:Floor",
}
"""The module and class of every client, by the name that tables show."""

WRITERS = {
    "PersistenceWriter": "writers:Arrival",
    "PersistenceWriter, by event time": "writers:Event",
    "PersistenceWriter, durable": "writers:Durable",
    "PersistenceWriter, durable, by event time": "writers:DurableEvent",
    "AsyncPersistenceWriter": "writers:AsyncArrival",
    "OnlineStore.write, 25 at a time": "writers:ByHand",
    "boto3 batch_writer": "with_boto3:Boto3Resource",
    "aioboto3 batch_writer": "with_aioboto3:Aioboto3Resource",
    "Feast online_write_batch": "with_feast:FeastStore",
}
"""Who takes part where rows are streamed into a table."""

OURS = {False: "OnlineStore", True: "AsyncOnlineStore"}
"""What a client is compared to: the one that has as many calls under way. By `Client.tasks`."""


def load(name: str) -> type[Client]:
    """The class of a client; raises `ImportError` where its library is not installed."""
    module, _, class_name = (PLACES | WRITERS)[name].partition(":")
    found: type[Client] = getattr(import_module(f"benchmarks.clients.{module}"), class_name)
    return found
