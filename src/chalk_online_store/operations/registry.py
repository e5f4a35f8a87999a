"""Loading the registry, and entering, renaming and dropping what is in it."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Iterable
from dataclasses import replace
from functools import partial

from chalk_online_store.backend import Backend, Call
from chalk_online_store.codec import registry as edits
from chalk_online_store.codec.changes import MAX_TRANSACT_ITEMS, ConditionalWrite
from chalk_online_store.codec.namespaces import NamespaceCodec
from chalk_online_store.codec.registry import (
    NAMES_AFTER,
    PARTITION,
    UNREADABLE_HOME,
    Entry,
    Registry,
    home_mark,
    read_items,
)
from chalk_online_store.effects import NOW, Instant, Operation, Sleep
from chalk_online_store.errors import (
    DamagedItem,
    RegistryError,
    RegistryUnavailable,
    RequestError,
    RequestTimeout,
    UnknownFeature,
)
from chalk_online_store.schema import Namespace
from chalk_online_store.tiers.filter.keeper import initial_items
from chalk_online_store.tiers.mutex import OperationMutex

REFRESH_SECONDS = 5.0
"""How long a reader may take to notice features that another process has registered."""

_REFRESH_SHARE = 0.25
"""What part of its time a read spends on features that may be new, at most."""

_HOME_SHARE = 0.5
"""The share of its time that a delete waits for the registry's home region, at most."""

_WAIT_A_TRANSACTION = 0.025
_LONGEST_WAIT = 4.0
"""Seconds, at most, for which whoever was overtaken lets the others go on.

Who overtook us has about as much to do as we have, hence the wait for each transaction. Measured
with 50 processes of 2,000 features each on 2 cores: 14 s, against 32 s with 0.05 s whatever there
is to do.
"""

Plan = Callable[[Registry], edits.Transactions]
"""What is left to do by a reading of the registry; nothing where all is done."""


class RegistryKeeper:
    """This process's reading of the registry, and the namespaces encoded by it.

    Readings are immutable and replaced as a whole, so threads may share a keeper: at worst two
    of them load the same reading.
    """

    def __init__(self, backend: Backend, rng: random.Random | None = None) -> None:
        self._backend = backend
        self._rng = rng or random.Random()
        self._registry = Registry()
        self._dropped: frozenset[str] = frozenset()
        self._codecs: dict[str, NamespaceCodec] = {}
        self._drafts: dict[str, tuple[NamespaceCodec, NamespaceCodec]] = {}
        self._loaded = False
        self._turns = OperationMutex()
        self._looked_at = 0.0

    def known(self, namespace: Namespace) -> NamespaceCodec | None:
        """The namespace if the present reading of the registry has all of it, as it is declared."""
        codec = self.present(namespace)
        return codec if codec.agrees else None

    def present(self, namespace: Namespace) -> NamespaceCodec:
        """The namespace by the present reading of the registry, whatever that lacks."""
        codec = self._codecs.get(namespace.name)
        current = codec is not None and codec.registry is self._registry
        if codec is None or not current or codec.namespace is not namespace:
            codec = NamespaceCodec(namespace, self._registry, self._backend.layout)
            self._codecs[namespace.name] = codec
        return codec

    def draft(self, namespace: Namespace) -> NamespaceCodec:
        """The namespace with whatever ids would be next, to check keys and rows against.

        With it, bad input is refused before anything is sent. It is the real codec where that
        lacks nothing.
        """
        codec = self.present(namespace)
        if codec.agrees:
            return codec
        known = self._drafts.get(namespace.name)
        if known is None or known[0] is not codec:  # Readers may go on without the ids for long.
            known = self._drafts[namespace.name] = (codec, self._drafted(codec))
        return known[1]

    def _drafted(self, codec: NamespaceCodec) -> NamespaceCodec:
        registry, layout = codec.registry, self._backend.layout
        if codec.compared.conflicts or codec.compared.damage:  # The next reading may agree.
            registry = Registry(dropped=registry.dropped)
        missing = registry.compare(codec.namespace).missing
        entries = registry.allocate(missing, layout.reserved)
        drafted = replace(registry, entries=(*registry.entries, *entries))
        return NamespaceCodec(codec.namespace, drafted, layout)

    def for_read(self, namespace: Namespace, call: Call) -> Operation[NamespaceCodec]:
        """The namespace as the registry has it; features that it lacks were never written.

        If the two do not agree, the registry is read again, at most once per `REFRESH_SECONDS`.
        Raises `TypeConflict` or `RegistryError` if the namespace cannot be used at all, and
        `RegistryUnavailable` if the registry could never be read. What a single feature conflicts
        with is in the codec.
        """
        yield from self._refresh_if_due(namespace, call)
        return self._checked(namespace)

    def _refresh_if_due(self, namespace: Namespace, call: Call) -> Operation[None]:
        if not self.present(namespace).agrees:
            now: Instant = yield NOW
            if not self._loaded:
                yield from self._load_first(call)
            elif now.monotonic - self._looked_at > REFRESH_SECONDS:
                yield from self._refresh(now.monotonic, call)

    def _checked(self, namespace: Namespace) -> NamespaceCodec:
        codec = self.present(namespace)
        codec.check()
        return codec

    def for_erasure(
        self, namespace: Namespace, call: Call, *, registers: bool
    ) -> Operation[NamespaceCodec]:
        """The namespace as the registry has it now, with groups that others have just registered.

        Reads the registry in its home region or, if that does not answer, in another one, which
        may lack what was registered there last. `registers` gives an id to every feature that
        lacks one. Raises as `for_write` does.
        """
        now: Instant = yield NOW
        seconds = (call.deadline - now.monotonic) * _HOME_SHARE
        at_home = Call(now.monotonic + seconds, report=call.report, region=self._backend.home)
        try:
            yield from self.load(at_home)
        except RequestError:
            yield from self._load_for(call)
        if registers:
            yield from self._register(namespace, call)
        return self._checked(namespace)

    def for_write(self, namespace: Namespace, call: Call) -> Operation[NamespaceCodec]:
        """The namespace with an id for every feature: those that lack one get it now.

        Raises `RegistryUnavailable` where that cannot be done, and as `for_read` does.
        """
        if not self._loaded:
            yield from self._load_first(call)
        else:
            codec = self.present(namespace)
            if codec.agrees:
                return codec
            if codec.compared.conflicts or codec.compared.damage is not None:
                yield from self._refresh_if_due(namespace, call)
        yield from self._register(namespace, call)
        return self._checked(namespace)

    def _register(self, namespace: Namespace, call: Call) -> Operation[None]:
        if self._checked(namespace).missing:
            now: Instant = yield NOW
            plan = partial(self._entering, namespace, now.wall)
            yield from self._carry_out(f"Features of {namespace.name!r}", plan, call)

    def _entering(self, namespace: Namespace, now: int, registry: Registry) -> edits.Transactions:
        layout = self._backend.layout
        compared = registry.compare(namespace)
        if compared.damage is not None:
            raise compared.damage.error()
        registry.check_parents(compared.missing)
        entries = registry.allocate(compared.missing, layout.reserved)
        births = {
            e.name: initial_items(namespace, e.id, now, layout) for e in entries if not e.scope
        }
        return edits.entered(entries, layout, births)

    def rename(self, old: str, new: str, call: Call) -> Operation[None]:
        """Give a feature another full name; see `codec.registry.renamed`."""
        registry = yield from self._load_at_home(call)
        registry.check(old, new)
        plan = partial(edits.renamed, old=old, new=new, layout=self._backend.layout)
        yield from self._carry_out(f"The new name of {old!r}", plan, call)

    def drop(
        self, names: Iterable[str], call: Call, declared: Container[str] = ()
    ) -> Operation[None]:
        """Retire the ids of features by full name; see `codec.registry.dropped`.

        Raises `UnknownFeature` for a name that is neither registered nor among the declared.
        """
        registry = yield from self._load_at_home(call)
        names = list(names)
        registry.check(*names)
        families = {name: edits.family(registry, name) for name in names}
        for name, found in families.items():
            if not found and name not in declared:
                raise UnknownFeature(f"{name} is not in the registry.")
        doomed = frozenset().union(*families.values())
        plan = partial(edits.dropped, doomed=doomed, layout=self._backend.layout)
        yield from self._carry_out("The drop", plan, call)
        gone = {name for name, e in registry.by_name.items() if edits.identity(e) in doomed}
        self._dropped |= gone | families.keys()
        self._registry = replace(self._registry, dropped=self._dropped)

    def declared_again(self, names: Iterable[str]) -> None:
        """Let features that this process has dropped be registered once more, under new ids."""
        names = self._dropped.intersection(names)
        if names:
            self._dropped -= names
            self._registry = replace(self._registry, dropped=self._dropped)

    def adopt(self, entries: Iterable[Entry], call: Call) -> Operation[None]:
        """Take over entries with their ids; see `codec.registry.adopted`."""
        registry = yield from self._load_at_home(call)
        entries = tuple(entries)
        registry.check(*(entry.name for entry in entries))
        plan = partial(edits.adopted, entries=entries, layout=self._backend.layout)
        yield from self._carry_out("The entries", plan, call)

    def move_home(self, region: str, regions: Container[str], call: Call) -> Operation[bool]:
        """Have the registry written in `region` from now on; what moves is an item there.

        False where the home so far is not among the `regions` or did not answer: then nobody
        knows whether all of the registry is here. Raises `RegistryError` where not all is.
        """
        call = call.within(region)
        here = yield from self.load(call)
        if here.home == region:
            return True
        compared, before = True, None
        if here.home:
            compared = here.home in regions and (yield from self._has_all(here, region, call))
            before = home_mark(here.home, self._backend.layout)
        swap = ConditionalWrite(before, home_mark(region, self._backend.layout))
        if not (yield from self._backend.transact([swap], call)):
            raise RegistryError("Somebody else is moving the registry: look where it is now.")
        return compared

    def _has_all(self, here: Registry, region: str, call: Call) -> Operation[bool]:
        """Whether the home so far says that all is here; raises `RegistryError` if it does not."""
        now: Instant = yield NOW
        patience = (call.deadline - now.monotonic) * _REFRESH_SHARE
        try:
            there = yield from self.load(Call(now.monotonic + patience, region=here.home))
        except RequestError:
            return False
        there.check()
        here.check()
        missing = len(set(there.entries).difference(here.entries))
        if missing:  # It would give their ids a second time.
            raise RegistryError(
                f"{missing} of the registry's entries are in {here.home} but not in {region}, or "
                "not as they are there: try again when they have been replicated."
            )
        return True

    def _carry_out(self, what: str, plan: Plan, call: Call) -> Operation[None]:
        """Do what a plan says, each time of a new reading, until nothing is left to do."""
        wait = _WAIT_A_TRANSACTION
        call = call.within(self._backend.home)
        try:
            while transactions := plan(self._registry):
                self._settle_home(transactions)
                if not (yield from self._perform(transactions, call)):
                    yield from self._back_off(wait * len(transactions), call)
                    wait *= 2
                yield from self.load(call)
        except RequestError as error:
            raise RegistryUnavailable(f"{what} cannot be registered: {error}") from error

    def check_home(self) -> None:
        """Refuse to write in another region than the registry's; raises `RegistryError`.

        Two regions would both accept the same id, and both a Bloom filter's next head.
        """
        ours, theirs = self._backend.home, self._registry.home
        if theirs == UNREADABLE_HOME:
            raise RegistryError(
                "The registry's item '~home' cannot be read, so its home region is unknown. "
                "Restore the attribute 'region' of that item."
            )
        if not self._registry.may_be_written_in(ours):
            raise RegistryError(
                f"The registry is written in {theirs}, not in {ours or 'no region'}: put "
                f"home={theirs} into the URL, and {theirs} among its regions."
            )

    def _settle_home(self, transactions: edits.Transactions) -> None:
        """Note in the table where the registry is written, with the first that is."""
        self.check_home()
        ours = self._backend.home
        if self._registry.home == ours:
            return
        mark = ConditionalWrite(None, home_mark(ours, self._backend.layout))
        if len(transactions[0]) < MAX_TRANSACT_ITEMS:
            transactions[0].append(mark)
        else:
            transactions.insert(0, [mark])

    def _perform(self, transactions: edits.Transactions, call: Call) -> Operation[bool]:
        """False, with the rest undone, where another process was faster."""
        for swaps in transactions:
            if not (yield from self._backend.transact(swaps, call)):
                return False
        return True

    def _back_off(self, longest: float, call: Call) -> Operation[None]:
        """Wait at random, so that of many processes one gets on and spares the others work."""
        seconds = self._rng.uniform(0, min(longest, _LONGEST_WAIT))
        now: Instant = yield NOW
        if now.monotonic + seconds >= call.deadline:
            raise RequestTimeout("other processes kept changing the registry until the deadline.")
        call.report.retries += 1
        yield Sleep(seconds)

    def load(self, call: Call) -> Operation[Registry]:
        """Read the registry."""
        try:
            items = yield from self._backend.list_partition(PARTITION, NAMES_AFTER, call)
        except DamagedItem as error:
            raise RegistryError(
                f"The registry cannot be read: an item of the partition {PARTITION!r} is not one. "
                "Remove it, or restore the table from a backup."
            ) from error
        now: Instant = yield NOW
        registry = read_items(items, self._backend.layout, self._dropped)
        # A replica that is behind must not make us forget what we knew.
        behind = call.region != self._backend.home and registry.is_older_than(self._registry)
        if registry != self._registry and not behind:
            self._registry = registry
        self._loaded, self._looked_at = True, now.monotonic
        return self._registry

    def _load_at_home(self, call: Call) -> Operation[Registry]:
        """Read it where it is written: replicas may be behind."""
        return (yield from self.load(call.within(self._backend.home)))

    def _load_first(self, call: Call) -> Operation[None]:
        """Of many who begin at once, one reads it."""
        yield from self._turns.take(
            self._load_for, call, unless=lambda: self._registry if self._loaded else None
        )

    def _load_for(self, call: Call) -> Operation[Registry]:
        try:
            return (yield from self.load(call))
        except RequestError as error:
            if not error.retryable:
                raise
            raise RegistryUnavailable(f"The registry cannot be read: {error}") from error

    def _refresh(self, now: float, call: Call) -> Operation[None]:
        """Read it again; where that fails, what is known is still served."""
        self._looked_at = now
        deadline = now + (call.deadline - now) * _REFRESH_SHARE
        try:
            yield from self.load(Call(deadline, report=call.report))
        except RequestError:
            return
