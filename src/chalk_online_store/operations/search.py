"""Vector search: nearest entities, and their features as rows.

A search has two steps. The engine finds partition keys and scores; then the entities are read as
any read reads them, with their statuses, unless the index holds copies of all that is asked for.
The read decides what is returned: an index may lag behind the table, and knows nothing of max
staleness or tombstones. So an entity is left out if its vector, or a feature that it was found by,
is missing, null, stale or another now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Generic

import numpy as np

from chalk_online_store.arguments import kind_of, name_mapping
from chalk_online_store.backend import Backend, Call, GroupKeys, RowOrError, Searched
from chalk_online_store.codec.changes import Times, parse_item, read_number
from chalk_online_store.codec.layout import own
from chalk_online_store.codec.namespaces import NamespaceCodec
from chalk_online_store.codec.nearest import Condition, VectorQuery
from chalk_online_store.codec.shapes import Column, Shape
from chalk_online_store.codec.values import is_masked
from chalk_online_store.codec.vector_indexes import index_spec
from chalk_online_store.effects import NOW, Instant, Operation
from chalk_online_store.errors import InvalidValue
from chalk_online_store.operations.read import ReadPlan, count_found
from chalk_online_store.operations.rows import C_co, ColumnSources, Rows, Status
from chalk_online_store.report import Report
from chalk_online_store.schema import Feature, Namespace
from chalk_online_store.schema.types import VectorType
from chalk_online_store.schema.vector_index import MAX_K, VectorIndex
from chalk_online_store.tiers.cached_reads import Reads

_LARGEST = float(np.finfo("f4").max)


class SearchRows(Rows[C_co], Generic[C_co]):
    """What a search found: a row for each entity, best first, with its score.

    Rows have statuses and observed-ats as those of a read. After a search for several vectors, the
    rows of the first come first: `of(i)` has those of vector i. `exact` says that every stored
    vector was compared; a vector index is approximate.
    """

    def __init__(
        self,
        keys: Sequence[Any],
        sources: ColumnSources,
        positions: Sequence[int] | None,
        found: Sequence[Sequence[RowOrError]],
        now: int,
        report: Report,
        scores: Sequence[float] = (),
        queries: Sequence[int] = (),
        exact: bool = True,
    ) -> None:
        super().__init__(keys, sources, positions, found, now, report)
        self.scores = list(scores)
        """The score of each row: a distance, or a dot product, as the index declares."""
        self.queries = list(queries)
        """Which of the search's vectors each row was found for, from 0."""
        self.exact = exact

    def of(self, query: int) -> SearchRows[C_co]:
        """Return the rows that were found for one of several vectors."""
        places = [i for i, each in enumerate(self.queries) if each == query]
        positions = [self._position(i) for i in places]
        return SearchRows(
            [self.keys[i] for i in places],
            self._sources,
            positions,
            self._found,
            self._now,
            self.report,
            [self.scores[i] for i in places],
            [query] * len(places),
            self.exact,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        restore, arguments = super().__reduce__()
        return _restored, (restore, arguments, self.scores, self.queries, self.exact)


def _restored(
    restore: Any, arguments: Any, scores: list[float], queries: list[int], exact: bool
) -> SearchRows[Any]:
    rows = restore(*arguments)
    return SearchRows(
        rows.keys,
        rows._sources,
        rows._positions,
        rows._found,
        rows._now,
        rows.report,
        scores,
        queries,
        exact,
    )


@dataclass(frozen=True, slots=True)
class Search:
    """A search whose arguments were checked, before the registry is known."""

    feature: Feature
    index: VectorIndex
    vectors: Any
    where: Mapping[str, bytes]
    """The attributes that are compared, by feature."""
    k: int
    max_scanned: int

    @property
    def needed(self) -> tuple[str, ...]:
        """The features that decide on what is found: the vector first."""
        return (self.feature.name, *self.where)


def check_search(
    namespace: Namespace, name: Any, vectors: Any, k: int, where: Any, max_scanned: int
) -> Search:
    """Check the arguments of a search. Raises `InvalidValue` and `UnknownFeature`."""
    feature = namespace.feature(name)
    index = feature.index
    full_name = namespace.full_name(feature)
    if index is None:
        indexed = [each.name for each in namespace.features if each.index is not None]
        raise InvalidValue(
            f"{full_name} has no vector index. Declare feature(index=VectorIndex(...)), or search "
            f"a feature that has one: {', '.join(indexed) or 'there is none'}."
        )
    assert isinstance(feature.type, VectorType)
    matrix = _matrix(full_name, feature.type.size, index, vectors)
    return Search(feature, index, matrix, _where(namespace, feature, index, where), k, max_scanned)


def _matrix(name: str, size: int, index: VectorIndex, vectors: Any) -> Any:
    if is_masked(vectors):
        raise InvalidValue(f"Search of {name}: the vector has masked elements.")
    try:
        given = np.asarray(vectors)
    except ValueError:  # Rows of several lengths.
        given = np.empty(0, "O")
    if given.dtype.kind not in "fiu" or given.ndim not in (1, 2) or given.shape[-1] != size:
        shape = f"of shape {given.shape}" if given.dtype.kind in "fiu" else kind_of(vectors)
        raise InvalidValue(
            f"Search of {name}: vector must have {size} numbers, or be a matrix of such rows; got "
            f"{'an array ' if given.dtype.kind in 'fiu' else ''}{shape}."
        )
    matrix = np.atleast_2d(given).astype("f8")
    if not np.all(np.abs(matrix) <= _LARGEST):
        raise InvalidValue(
            f"Search of {name}: the vector has NaN, an infinity, or an element beyond 3.4E38, the "
            "largest float32."
        )
    if index.distance == "cosine" and not matrix.any(axis=1).all():
        raise InvalidValue(
            f"Search of {name}: a vector of zeros has no direction, so no cosine distance."
        )
    return matrix


def _where(
    namespace: Namespace, feature: Feature, index: VectorIndex, where: Any
) -> dict[str, bytes]:
    full_name = namespace.full_name(feature)
    given = {} if where is None else name_mapping(where, "where", '{"country": "ch"}')
    found = {namespace.feature(name).name: value for name, value in given.items()}
    if len(found) < len(given):
        raise InvalidValue("where names a feature twice, by its short name and in full.")
    for name, value in found.items():
        if name not in index.conditions:
            known = ", ".join(index.conditions) or "none"
            raise InvalidValue(
                f"where: {name!r} is not a filter of the index of {full_name}, which has: {known}. "
                "Declare it in VectorIndex(filters=[...])."
            )
        if value is None:
            raise InvalidValue(
                f"Search of {full_name}: where={{{name!r}: None}} finds nothing: a null is not "
                "stored in an index. Leave it out to search all entities."
            )
    if index.partition is not None and index.partition not in found:
        raise InvalidValue(
            f"Search of {full_name}: where must have a value of {index.partition!r}, the partition "
            "of its index."
        )
    columns = (Column("", namespace.by_name[name], f"{namespace.name}.{name}") for name in found)
    return {
        name: column.encode(value)
        for column, (name, value) in zip(columns, found.items(), strict=True)
    }


def plan_search(
    codec: NamespaceCodec, search: Search, plan: ReadPlan, names: Sequence[str]
) -> VectorQuery | None:
    """Resolve a search by the registry; None if nothing can be stored that it would find.

    `plan` is of all features that are to be read, of which `names` are those of the rows. Raises
    `InvalidSchema` for an index that cannot be.
    """
    feature = search.feature
    codec.check_features(search.needed)
    group = codec.groups.get(feature.group)
    columns = {} if group is None else {each.feature.name: each for each in group.columns}
    if group is None or codec.prefix is None or not columns.keys() >= set(search.needed):
        return None
    # What has a max staleness has to be copied with its time; the index itself compares the rest.
    ages = {name: plan.sources[name].staleness for name in search.where}
    timed = [name for name, age in ages.items() if age is not None]
    covered = bool(search.index.project) and {*timed, *names} <= {*search.index.project}
    entries = codec.registry.by_name
    spec = index_spec(codec.namespace, feature, lambda name: entries[name].id)
    return VectorQuery(
        name=spec.feature,
        index=spec.name,
        prefix=codec.prefix,
        sk=group.sk,
        shape=Shape(codec.layout, tuple(columns[name] for name in search.needed)),
        staleness=tuple(plan.sources[name].staleness for name in search.needed),
        conditions=tuple(
            Condition(columns[name].id, attribute) for name, attribute in search.where.items()
        ),
        distance=search.index.distance,
        vectors=search.vectors,
        k=search.k,
        max_scanned=search.max_scanned,
        projected=spec.projected + tuple(each.name for each in spec.compared) if covered else (),
    )


def search(
    backend: Backend,
    through: Reads,
    query: VectorQuery,
    plan: ReadPlan,
    names: Sequence[str],
    call: Call,
) -> Operation[SearchRows[Any]]:
    """Find entities and read them; `names` are the features of the rows, `plan` has more."""
    codec = plan.codec
    # What each group has of an entity, and whether it may be returned, by partition key.
    rows: dict[str, Sequence[RowOrError]] = {}
    served: dict[str, bool] = {}
    asked = query
    while True:
        searched = yield from backend.search(asked, call)
        pks = list(dict.fromkeys(pk for each in searched.nearest for pk in each.pks))
        new = [pk for pk in pks if pk not in served]
        found: Sequence[Sequence[RowOrError]] = ()
        if new and plan.groups:
            found = yield from _read(searched, plan, through, new, call)
        rows |= {pk: [group[place] for group in found] for place, pk in enumerate(new)}
        now: Instant = yield NOW
        everything: Rows[Any] = Rows(new, plan.sources, None, found, now.wall, call.report)
        for place, pk in enumerate(new):
            copy = None if searched.items is None else searched.items[pk]
            served[pk] = _is_served(everything, place, query, copy, now)
        # What is left out takes places among the nearest k. Ask for more, while there may be more.
        lacking = any(
            len(each.pks) == asked.k and sum(map(served.__getitem__, each.pks)) < query.k
            for each in searched.nearest
        )
        if searched.exact or not lacking or asked.k == MAX_K:
            break
        asked = replace(asked, k=min(MAX_K, 2 * asked.k))
    call.report.search_dropped += sum(not served[pk] for pk in pks)
    hits = [
        (pk, score, each)
        for each, nearest in enumerate(searched.nearest)
        for pk, score in islice(
            (pair for pair in zip(nearest.pks, nearest.scores, strict=True) if served[pair[0]]),
            query.k,
        )
    ]
    distinct = list(dict.fromkeys(pk for pk, _, _ in hits))
    places = {pk: place for place, pk in enumerate(distinct)}
    keys = dict(zip(distinct, codec.primary_keys(distinct), strict=True))
    return SearchRows(
        [keys[pk] for pk, _, _ in hits],
        plan.sources.only(names),
        [places[pk] for pk, _, _ in hits],
        [[rows[pk][group] for pk in distinct] for group in range(len(plan.groups))],
        now.wall,
        call.report,
        [score for _, score, _ in hits],
        [each for _, _, each in hits],
        searched.exact,
    )


def _read(
    searched: Searched, plan: ReadPlan, through: Reads, pks: Sequence[str], call: Call
) -> Operation[Sequence[Sequence[RowOrError]]]:
    """The rows of each group: the copies in the index if it has all that is needed."""
    found: Sequence[Sequence[RowOrError]]
    if searched.items is None:
        found = yield from through.get([GroupKeys(g.sk, g.shape, pks) for g in plan.groups], call)
    else:
        copies = [searched.items[pk] for pk in pks]
        found = [group.shape.decode_each(copies) for group in plan.groups]
    for rows in found:
        count_found(rows, call)
    return found


def nothing_found(plan: ReadPlan, names: Sequence[str], report: Report) -> SearchRows[Any]:
    """The result of a search where no vector was ever written."""
    return SearchRows([], plan.sources.only(names), None, [[] for _ in plan.groups], 0, report)


def _is_served(
    rows: Rows[Any], place: int, query: VectorQuery, copy: bytes | None, now: Instant
) -> bool:
    """Return False if the vector, or a feature that was compared, is not as the search wants it.

    What could not be read is kept: its status says so. `copy` is an item of the index, which has a
    vector if it is in the index, and may not copy it.
    """
    vector, *compared = query.shape.columns
    read = query.shape.columns
    if copy is not None:
        if not _is_fresh(copy, vector, query.staleness[0], now.wall):
            return False
        read = tuple(column for column in compared if column.id in query.projected)
    statuses = [rows.answer(place, column.feature.name).status for column in read]
    if Status.FAILED in statuses:
        return True
    if any(status is not Status.HIT for status in statuses):
        return False
    return all(
        rows.content(place, column.feature.name) == column.read(condition.attribute)
        for column, condition in zip(compared, query.conditions, strict=True)
        if column in read
    )


def _is_fresh(copy: bytes, vector: Column, staleness: int | None, now: int) -> bool:
    """Return True if a vector may be served, by the times that an index copies."""
    item = parse_item(copy)
    own_time = read_number(item.get(own(vector.id)))
    observed_at = Times(item).base if own_time is None else own_time
    return staleness is None or now - observed_at <= staleness
