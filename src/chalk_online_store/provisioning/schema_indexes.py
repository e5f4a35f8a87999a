"""The vector indexes of a schema, created in a table that exists."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from chalk_online_store.codec.registry import Registry
from chalk_online_store.codec.vector_indexes import VectorIndexSpec, index_specs
from chalk_online_store.dynamodb.sessions import Sessions, resolve_regions
from chalk_online_store.dynamodb.urls import DynamoDBTarget
from chalk_online_store.errors import InvalidURL, RequestRefused
from chalk_online_store.provisioning.applying import apply
from chalk_online_store.provisioning.changes import Plan
from chalk_online_store.provisioning.control_plane import ControlPlane
from chalk_online_store.provisioning.observing import observe
from chalk_online_store.provisioning.planning import plan
from chalk_online_store.provisioning.spec import TableSpec
from chalk_online_store.schema import Namespace, namespaces
from chalk_online_store.store import OnlineStore
from chalk_online_store.urls import parse_url


def vector_indexes_of(schema: Iterable[Namespace | type]) -> tuple[VectorIndexSpec, ...]:
    """Return the vector indexes of a schema, for `TableSpec(vector_indexes=...)` of a new table.

    A table that exists may have renamed features: `create_vector_indexes` heeds its registry.
    Raises `InvalidSchema`.
    """
    return tuple(index_specs(namespaces(schema).values()))


def create_vector_indexes(
    url: str,
    schema: Iterable[Namespace | type],
    *,
    session: Sessions | None = None,
    timeout: float = 3600.0,
) -> list[str]:
    """Create the vector indexes that a schema declares and a table lacks, one after the other.

    Returns their names once all of them can be searched in the first region of the URL. `timeout`
    is in seconds, for each: AWS takes minutes, and more for a large table. No index is deleted,
    so that processes with an older schema keep theirs. Safe to repeat.

    Raises `InvalidURL` for a store that is not DynamoDB, `InvalidSchema`, `RequestRefused` with
    the reason if the table cannot have another index, `RequestTimeout`, `AccessDenied`,
    `TableNotFound`.
    """
    target = parse_url(url)
    if not isinstance(target, DynamoDBTarget):
        raise InvalidURL("Only tables of DynamoDB have vector indexes; other stores need none.")
    listed = list(schema)
    with OnlineStore.open(url, listed, session=session) as store:
        wanted = tuple(index_specs(namespaces(listed).values(), _registry(store)))
    regions = resolve_regions(target, session)
    names = tuple(each.endpoint.region for each in regions)
    urls = dict(zip(names, target.endpoint_urls, strict=True)) if target.endpoint_urls else {}
    plane_session = session if session is not None else regions[0].session
    with ControlPlane(plane_session, endpoint_urls=urls) as plane:
        state = observe(plane, target.table, names[:1])
        now = state.of(names[0])
        layout = target.layout
        spec = TableSpec(
            target.table,
            names[:1],
            pk=layout.pk,
            sk=layout.sk,
            ttl=layout.ttl,
            vector_indexes=wanted,
        )
        made = _of_indexes(plan(spec, state))
        for change in made.impossible:
            raise RequestRefused(f"{target.table}: {change.line()}.")
        apply(made, plane, timeout=timeout)
    return [index.name for index in wanted if index.name not in now.vector_indexes]


def _registry(store: OnlineStore) -> Registry:
    return store.driver.run(store.core.known_registry(None))


def _of_indexes(whole: Plan) -> Plan:
    """A plan that leaves alone what is not an index."""
    impossible = (c for c in whole.impossible if c.what in ("vector index", "keys", "table"))
    changes = tuple(c for c in whole.changes if c.what == "vector index")
    return replace(whole, changes=changes, held=(), impossible=tuple(impossible))
