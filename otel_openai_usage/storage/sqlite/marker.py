"""The marker: a small file beside the state that says what the state should be.

It holds the state's instance id, the number and time of its newest commit, and a checksum of every
page. A state that is older than its marker lost something: its write-ahead log, or all that came
after a backup. A page that does not have its checksum was changed by something else.

The file is a base record, and one short record for every commit since. A record is appended after
its commit is on the disk, so the marker never claims what is not there, whenever the process is
killed. Records are not flushed one by one, which would double the cost of a commit; after a power
cut the marker may lag by as long as the system keeps what is written in memory.
"""

import json
import os
import struct
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

from otel_openai_usage.storage.sqlite.pages import PageSums

_MAGIC = b"otel-openai-usage marker 1\n"
_RECORD = struct.Struct("<II")  # bytes of the payload, its checksum
_COMMIT = struct.Struct("<QqI")  # number, time, pages of the database
_PAGE = struct.Struct("<II")  # page, checksum

COMPACT_AT = 1 << 18
"""Bytes of commit records after which a new base record is worth its writing, unless the base
itself is larger.
"""


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """One commit: the pages that it changed, and how many the database had after it."""

    number: int
    time: int
    pages: int
    changed: bytes


@dataclass(frozen=True, slots=True)
class Marker:
    """What a marker says. `began` is when counting began, `number` and `time` those of the newest
    commit.
    """

    instance: str
    began: int | None
    base_number: int
    base_time: int
    base: PageSums
    commits: Sequence[CommitRecord] = field(default_factory=tuple)

    @property
    def number(self) -> int:
        """The newest commit."""
        return self.commits[-1].number if self.commits else self.base_number

    @property
    def time(self) -> int:
        """When the newest commit was made, Unix seconds."""
        return self.commits[-1].time if self.commits else self.base_time

    def sums_at(self, number: int) -> PageSums | None:
        """The checksums of the database as of a commit; None for one before the base."""
        if number < self.base_number:
            return None
        found = PageSums(array("I", self.base.sums))
        for commit in self.commits:
            if commit.number > number:
                break
            for page, checksum in _PAGE.iter_unpack(commit.changed):
                found.set(page, checksum)
            found.resize(commit.pages)
        return found


class MarkerDamaged(Exception):
    """The marker cannot be read; the state may be all right."""


def marker_path(state: str) -> str:
    """Where the marker of a state is."""
    return f"{state}.marker"


def read_marker(path: str) -> Marker | None:
    """The marker at `path`; None if there is none. Raises MarkerDamaged or OSError.

    What follows a damaged commit record is left out.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        return None
    if not data.startswith(_MAGIC):
        raise MarkerDamaged(path)
    payloads = _payloads(data)
    if not payloads:
        raise MarkerDamaged(path)
    text, _, sums = payloads[0].partition(b"\n")
    said = json.loads(text)
    base = PageSums(array("I", sums))
    commits = []
    for payload in payloads[1:]:
        number, time, pages = _COMMIT.unpack_from(payload)
        commits.append(CommitRecord(number, time, pages, payload[_COMMIT.size :]))
    return Marker(said["instance"], said["began"], said["number"], said["time"], base, commits)


def _payloads(data: bytes) -> list[bytes]:
    """The payloads of all records up to the first that is damaged or cut."""
    found = []
    offset = len(_MAGIC)
    while offset + _RECORD.size <= len(data):
        length, checksum = _RECORD.unpack_from(data, offset)
        payload = data[offset + _RECORD.size : offset + _RECORD.size + length]
        if len(payload) < length or crc32(payload) != checksum:
            break
        found.append(payload)
        offset += _RECORD.size + length
    return found


def _record(payload: bytes) -> bytes:
    return _RECORD.pack(len(payload), crc32(payload)) + payload


class MarkerFile:
    """The marker of a state that is open for writing. Methods raise OSError."""

    def __init__(self, path: str, instance: str) -> None:
        self._path = path
        self._instance = instance
        self._file: int | None = None
        self._appended = 0
        self._base = 0

    @property
    def worth_compacting(self) -> bool:
        """Whether the commit records have become long, or could not be written."""
        return self._file is None or self._appended > max(COMPACT_AT, self._base)

    def replace(self, number: int, time: int, began: int | None, sums: PageSums) -> None:
        """Begin again with a base record, which is on the disk afterwards."""
        said = {"instance": self._instance, "began": began, "number": number, "time": time}
        payload = json.dumps(said).encode() + b"\n" + sums.sums.tobytes()
        self.close()
        beside = f"{self._path}.new"
        file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_all(file, _MAGIC + _record(payload))
            os.fsync(file)
            Path(beside).rename(self._path)
        except OSError:
            os.close(file)
            with suppress(OSError):
                Path(beside).unlink()
            raise
        self._file = file
        self._base = len(payload)
        self._appended = 0
        sync_folder(self._path)

    def append(self, number: int, time: int, pages: int, changed: Mapping[int, int]) -> None:
        """Add a commit that is on the disk. After an OSError nothing more is added until the next
        base record: a record that is missing would make the checksums wrong.
        """
        if self._file is None:
            return
        payload = _COMMIT.pack(number, time, pages) + b"".join(
            [_PAGE.pack(page, checksum) for page, checksum in changed.items()]
        )
        try:
            _write_all(self._file, _record(payload))
        except OSError:
            self.close()
            raise
        self._appended += _RECORD.size + len(payload)

    def sync(self) -> None:
        """Have what was added survive a power cut."""
        if self._file is not None:
            os.fsync(self._file)

    def close(self) -> None:
        """Let go of the file. Doing so twice does no harm."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def sync_folder(path: str) -> None:
    """Have a rename in the folder of `path` survive a power cut, where the system can do that."""
    with suppress(OSError):
        folder = os.open(Path(path).parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
