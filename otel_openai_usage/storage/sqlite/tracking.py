"""Keeps the marker of an open state: follows every commit with the pages that it changed."""

import logging

from otel_openai_usage.storage.sqlite.marker import MarkerFile, marker_path
from otel_openai_usage.storage.sqlite.pages import LogScanner, PageSums

log = logging.getLogger(__name__)


class Tracker:
    """Used from the store's thread. A marker that cannot be written does not stop the exporter:
    the commits themselves are safe.
    """

    def __init__(self, path: str, sums: PageSums, *, has_log: bool) -> None:
        self._path = marker_path(path)
        self._sums = sums
        self._has_log = has_log  # without a log nothing tells which pages a commit changed
        self._scanner = LogScanner(f"{path}-wal")
        self._marker: MarkerFile | None = None
        self._failed = False
        if has_log:
            self._scanner.skip()
        else:
            sums.resize(0)

    def begin(self, instance: str, number: int, time: int, began: int | None) -> None:
        """Write the marker for what is committed by now."""
        self._follow()
        self._marker = MarkerFile(self._path, instance)
        self._replace(self._marker, number, time, began)

    def committed(self, number: int, time: int) -> None:
        """A commit is on the disk."""
        changed = self._follow()
        if self._marker is None:
            return
        try:
            self._marker.append(number, time, len(self._sums), changed)
        except OSError as error:
            self._failed_to_write(error)

    def settle(self, number: int, time: int, began: int | None) -> None:
        """Have the marker survive a power cut, and be short. Takes some milliseconds."""
        if self._marker is None:
            return
        if self._marker.worth_compacting:
            self._replace(self._marker, number, time, began)
            return
        try:
            self._marker.sync()
        except OSError as error:
            self._failed_to_write(error)

    def counting_began(self, number: int, time: int, began: int) -> None:
        """Write down since when the state counts."""
        if self._marker is not None:
            self._replace(self._marker, number, time, began)

    def close(self) -> None:
        """Let go of the files. Doing so twice does no harm."""
        self._scanner.close()
        if self._marker is not None:
            self._marker.close()

    def _follow(self) -> dict[int, int]:
        """Take over the checksums of the pages that were committed since the last call."""
        if not self._has_log:
            return {}
        changed, pages = self._scanner.new_pages()
        for page, checksum in changed.items():
            self._sums.set(page, checksum)
        if pages is not None:
            self._sums.resize(pages)
        return changed

    def _replace(self, marker: MarkerFile, number: int, time: int, began: int | None) -> None:
        try:
            marker.replace(number, time, began, self._sums)
            self._failed = False
        except OSError as error:
            self._failed_to_write(error)

    def _failed_to_write(self, error: OSError) -> None:
        if not self._failed:
            self._failed = True
            log.warning(
                "the marker of the state cannot be written; it is tried again",
                extra={
                    "event": "state_marker_failed",
                    "path": self._path,
                    "error": error.strerror or str(error),
                },
            )
