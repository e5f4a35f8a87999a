"""A plan and its changes, as data: printable as a diff, as JSON, and with an exit code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from chalk_online_store.provisioning.control_plane import ControlPlaneCall
from chalk_online_store.provisioning.spec import TableSpec

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
