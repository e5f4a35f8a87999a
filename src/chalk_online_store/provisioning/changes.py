"""A plan and its changes, as data: printable as a diff, as JSON, and with an exit code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from chalk_online_store.provisioning.control_plane import ControlPlaneCall
from chalk_online_store.provisioning.spec import Provisioned, TableSpec, Units
from chalk_online_store.provisioning.state import (
    BOTH_IMAGES,
    ON_DEMAND,
    PROVISIONED,
    Dimension,
    Key,
    RegionTableState,
    TableState,
    Unknown,
)

Sign: TypeAlias = Literal["+", "~", "-", "!"]
Plain: TypeAlias = str | int | float | bool | Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between a table and its spec, and the call that settles it.

    `sign` is `+` for what is created, `~` for what is changed, `-` for what is removed, and `!`
    for what no call can change: there `call` is None and `why` says what to do by hand.
    `needs` are the names that allow a change which destroys something.
    """

    region: str
    what: str
    before: Plain
    after: Plain
    call: ControlPlaneCall | None
    sign: Sign = "~"
    why: str = ""
    needs: tuple[str, ...] = ()

    def line(self) -> str:
        """As a line of a diff."""
        text = f"{self.sign} {self.region} {self.what}: {_text(self.before)} -> {_text(self.after)}"
        return f"{text}  ({self.why})" if self.why else text

    def plain(self) -> dict[str, Any]:
        """As builtins, for JSON."""
        return {
            "sign": self.sign,
            "region": self.region,
            "what": self.what,
            "before": self.before,
            "after": self.after,
            "why": self.why,
            "needs": list(self.needs),
            "call": self.call.plain() if self.call else None,
        }


@dataclass(frozen=True, slots=True)
class Note:
    """What is no difference, but worth knowing: unknown parts, and what is left alone."""

    region: str
    what: str
    text: str

    def line(self) -> str:
        """As a line beside a diff."""
        return f"? {self.region} {self.what}: {self.text}"

    def plain(self) -> dict[str, str]:
        """As builtins, for JSON."""
        return {"region": self.region, "what": self.what, "text": self.text}


@dataclass(frozen=True, slots=True)
class Plan:
    """What makes a table as its spec wants it: the changes in the order they are made.

    `held` destroy something that `destroy` does not name, or follow from one that does; they are
    not made. `impossible` cannot be made by any call. All three are differences.
    """

    spec: TableSpec
    destroy: frozenset[str] = frozenset()
    changes: tuple[Change, ...] = ()
    held: tuple[Change, ...] = ()
    impossible: tuple[Change, ...] = ()
    notes: tuple[Note, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether the table is as its spec wants it."""
        return not (self.changes or self.held or self.impossible)

    @property
    def exit_code(self) -> int:
        """For a command line: 0 where there is nothing to do, 2 where there are differences."""
        return 0 if self.empty else 2

    def lines(self) -> Iterator[str]:
        """The diff, and what is beside it."""
        for change in (*self.impossible, *self.changes):
            yield change.line()
        for change in self.held:
            allowed_by = ", ".join(name for name in change.needs if name not in self.destroy)
            yield f"{change.line()}  [held back; to allow it, name {allowed_by}]"
        for note in self.notes:
            yield note.line()

    def plain(self) -> dict[str, Any]:
        """As builtins, for JSON."""
        return {
            "table": self.spec.name,
            "exit_code": self.exit_code,
            "changes": [change.plain() for change in self.changes],
            "held": [change.plain() for change in self.held],
            "impossible": [change.plain() for change in self.impossible],
            "notes": [note.plain() for note in self.notes],
        }


def _text(value: Plain) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items())
    return str(value)


# --- What a plan is made from: a spec, what there is, and what may be destroyed ------------


@dataclass(frozen=True, slots=True)
class PlanContext:
    """A spec, what there is, and what may be destroyed."""

    spec: TableSpec
    state: TableState
    destroy: frozenset[str] = frozenset()

    @property
    def home(self) -> str:
        """The region whose endpoint is asked for what concerns the whole table.

        The first one of the spec that has the table. Where none has it, it is created in the
        first.
        """
        regions = self.spec.regions
        return next((name for name in regions if self.state.of(name).exists), regions[0])

    @property
    def keys(self) -> tuple[Key, ...]:
        """The primary key as it should be."""
        return (Key(self.spec.pk, "HASH", "S"), Key(self.spec.sk, "RANGE", "S"))

    @property
    def provisioned(self) -> Provisioned | None:
        """The capacity as it should be, where it is provisioned."""
        capacity = self.spec.capacity
        return capacity if isinstance(capacity, Provisioned) else None

    @property
    def stream_name(self) -> str:
        """What allows to disable the stream."""
        return f"stream:{self.home}"

    def units(self, region: str, dimension: Dimension) -> Units | None:
        """The provisioned capacity of a dimension as it should be in a region."""
        capacity = self.provisioned
        if capacity is None:
            return None
        return capacity.write if dimension == "write" else capacity.read_in(region)

    def now(self, region: str) -> RegionTableState:
        """The table in a region, as it is when the changes of its settings begin.

        That is: as it is created, where it is not there yet.
        """
        found = self.state.of(region)
        return found if found.exists else self._as_created(region, found)

    def _as_created(self, region: str, absent: RegionTableState) -> RegionTableState:
        """What CreateTable makes in the home region, and ReplicaUpdates in others.

        Recovery and autoscaling are none of it; a replica gets no tags and no deletion
        protection, and shares the time to live. What an engine lacks stays unknown.
        """
        spec, capacity, is_home = self.spec, self.spec.capacity, region == self.home
        made: dict[str, Any] = {"billing_mode": PROVISIONED if self.provisioned else ON_DEMAND}
        if isinstance(capacity, Provisioned):
            made |= {"read_units": capacity.read_in(region).units}
            made |= {"write_units": capacity.write.units}
        else:
            made |= {"max_read": capacity.max_read, "max_write": capacity.max_write}
        if is_home:
            made |= {"tags": dict(spec.tags), "deletion_protection": spec.deletion_protection}
        return RegionTableState(
            status="CREATING",
            keys=self.keys,
            kms_key_arn=spec.kms_key_arns.get(region, "aws/dynamodb"),
            table_class=spec.table_class,
            stream=BOTH_IMAGES if spec.is_global else None,
            recovery=absent.recovery,
            scaling=absent.scaling,
            ttl=absent.ttl,
            **{"tags": absent.tags, **made},
        )

    def update(
        self,
        what: str,
        before: Plain,
        after: Plain,
        *,
        sign: Sign = "~",
        why: str = "",
        needs: tuple[str, ...] = (),
        region: str | None = None,
        shown: str | None = None,
        **arguments: Any,
    ) -> Change:
        """A change by UpdateTable in `region`, the home unless stated; `shown` is what it is of."""
        asked = region or self.home
        call = ControlPlaneCall(asked, "UpdateTable", {"TableName": self.spec.name, **arguments})
        return Change(shown or asked, what, before, after, call, sign, why, needs)


def known(value: Any) -> bool:
    """Whether a part of the state can be seen."""
    return not isinstance(value, Unknown)
