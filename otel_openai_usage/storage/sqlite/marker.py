"""The marker: a small file beside the state that says what the state should be.

It has the state's instance id, the number and time of its newest commit, and a checksum of every
page. A state that is older than its marker lost something: its write-ahead log, or everything after
a backup. A page with another checksum was changed by another program or a damaged disk.

The file is a base record and one short record for every commit since. A record is appended after
its commit is on the disk. So the marker never claims a commit that does not exist, whenever the
process is killed. Records are not flushed one by one, which would double the cost of a commit.
After a power cut the marker may lack what the system had not written to the disk yet.
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

from otel_openai_usage.storage.sqlite.page_checksums import PageSums

_MAGIC = b"otel-openai-usage marker 1\n"
_RECORD = struct.Struct("<II")  # bytes of the payload, its checksum
_COMMIT = struct.Struct("<QqI")  # number, time, pages of the database
_PAGE = struct.Struct("<II")  # page, checksum

COMPACT_AT = 1 << 18
"""Bytes of commit records after which a new base record is written, unless the base itself is
larger.
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
    """The content of a marker.

    `began` is when counting began. `number` and `time` are those of the newest commit.
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
    """The marker cannot be read. The state itself may be sound."""


def marker_path(state: str) -> str:
    """The path of a state's marker."""
    return f"{state}.marker"


def read_marker(path: str) -> Marker | None:
    """The marker at `path`, None if there is none. Raises MarkerDamaged or OSError.

    Everything after a damaged commit record is left out.
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
    header = json.loads(text)
    base = PageSums(array("I", sums))
    commits = []
    for payload in payloads[1:]:
        number, time, pages = _COMMIT.unpack_from(payload)
        commits.append(CommitRecord(number, time, pages, payload[_COMMIT.size :]))
    return Marker(
        header["instance"], header["began"], header["number"], header["time"], base, commits
    )


def _payloads(data: bytes) -> list[bytes]:
    """The payloads of all records before the first one that is damaged or incomplete."""
    found = []
    offset = len(_MAGIC)
    while offset + _RECORD.size <= len(data):
        length, checksum = _RECORD.unpack_from(data, offset)
        start = offset + _RECORD.size
        end = start + length
        payload = data[start:end]
        if len(payload) < length or crc32(payload) != checksum:
            break
        found.append(payload)
        offset = end
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
        """Whether the commit records are long or could not be written."""
        return self._file is None or self._appended > max(COMPACT_AT, self._base)

    def replace(self, number: int, time: int, began: int | None, sums: PageSums) -> None:
        """Start a new file with a base record, which is on the disk afterwards."""
        header = {"instance": self._instance, "began": began, "number": number, "time": time}
        payload = json.dumps(header).encode() + b"\n" + sums.sums.tobytes()
        self.close()
        beside = f"{self._path}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        file = os.open(beside, flags, 0o600)
        try:
            _write_all(file, _MAGIC + _record(payload))
            # On the disk before the rename, or a power cut could leave an empty marker.
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
        """Add a commit that is on the disk.

        After an OSError nothing more is added until the next base record: without the missing
        record the checksums would be wrong.
        """
        if self._file is None:
            return
        changed_pages = [_PAGE.pack(page, checksum) for page, checksum in changed.items()]
        payload = _COMMIT.pack(number, time, pages) + b"".join(changed_pages)
        try:
            _write_all(self._file, _record(payload))
        except OSError:
            self.close()
            raise
        self._appended += _RECORD.size + len(payload)

    def sync(self) -> None:
        """Make what was added survive a power cut."""
        if self._file is not None:
            os.fsync(self._file)

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def sync_folder(path: str) -> None:
    """Make a rename in the folder of `path` survive a power cut, where the system supports it."""
    with suppress(OSError):
        folder = os.open(Path(path).parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
