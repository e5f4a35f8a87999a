"""Rendered files on disk, and their manifest.

A directory of Terraform files is read as a whole: a file that is left over from an earlier
rendering still creates its resources. So the directory keeps a manifest of the files that were
rendered, and files that are no longer rendered are removed, or their rendering is refused. Files
that other people wrote are never touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec
from msgspec import Struct

from chalk_online_store.errors import InvalidValue
from chalk_online_store.provisioning.terraform import HEADER

MANIFEST = ".chalk-online-store.json"
"""The manifest's name. Commit it with the files."""

_NAME = re.compile(r"[A-Za-z0-9_-]+(?:[./][A-Za-z0-9_-]+)*")
_FIRST_LINE = f"# {HEADER}\n"


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """The rendered files: their names below the directory, and the SHA-256 of their text."""

    files: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class WrittenFiles:
    """The names of the written and of the removed files."""

    written: tuple[str, ...]
    removed: tuple[str, ...]


def write_rendered(
    directory: Path, files: Mapping[str, str], *, may_prune: bool = False
) -> WrittenFiles:
    """Write rendered files, and remove stale files of an earlier rendering.

    `files` maps names below `directory` to texts. Rendering again replaces a rendered file.

    Raises `InvalidValue` before anything is written: if a file would be removed and `may_prune` is
    False, if such a file was edited since it was rendered, and if a file of the same name was not
    rendered. Raises `OSError` for what the file system refuses.
    """
    manifest = _read_manifest(directory)
    _refuse_foreign(directory, files, manifest)
    stale = tuple(sorted(_stale(directory, files, manifest)))
    if stale:
        _refuse_stale(directory, stale, manifest, may_prune=may_prune)
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for name in stale:
        (directory / name).unlink()
    made = Manifest({name: _digest(text) for name, text in sorted(files.items())})
    text = msgspec.json.format(msgspec.json.encode(made), indent=2).decode()
    (directory / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return WrittenFiles(tuple(files), stale)


def _read_manifest(directory: Path) -> Manifest:
    path = directory / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        return Manifest()
    except msgspec.DecodeError as error:
        raise InvalidValue(
            f"{path} is not a manifest of rendered files ({error}). Restore it, or delete it."
        ) from None
    # A manifest is committed with the files: a wrong name in it must not remove others.
    if wrong := sorted(name for name in manifest.files if not _NAME.fullmatch(name)):
        raise InvalidValue(f"{path} names {wrong[0]!r}, which no rendering writes. Restore it.")
    return manifest


def _refuse_foreign(directory: Path, files: Mapping[str, str], manifest: Manifest) -> None:
    for name in files:
        path = directory / name
        if name not in manifest.files and path.exists() and not _is_rendered(path):
            raise InvalidValue(
                f"{path} was not rendered by this command, and would be overwritten. Move it, or "
                "choose another directory by --output."
            )


def _stale(directory: Path, files: Mapping[str, str], manifest: Manifest) -> Iterator[str]:
    """Yield the files of an earlier rendering that are no longer rendered.

    Files that were rendered before there were manifests, or by an interrupted command, are known
    by their first line.
    """
    for name in manifest.files:
        if name not in files and (directory / name).exists():
            yield name
    for path in directory.glob("*.tf"):
        if path.name not in files and path.name not in manifest.files and _is_rendered(path):
            yield path.name


def _refuse_stale(
    directory: Path, stale: tuple[str, ...], manifest: Manifest, *, may_prune: bool
) -> None:
    names = ", ".join(stale)
    if not may_prune:
        raise InvalidValue(
            f"{directory} has files that are no longer rendered: {names}. Terraform would still "
            "apply them. Pass --prune to remove them."
        )
    for name in stale:
        text = (directory / name).read_text(encoding="utf-8")
        if manifest.files.get(name, _digest(text)) != _digest(text):
            raise InvalidValue(
                f"{directory / name} is no longer rendered, and was edited since. Move the edits "
                "to another file, then delete it."
            )


def _is_rendered(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline() == _FIRST_LINE


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
