"""Updates the marker of an open state: adds every commit with the pages that it changed."""

import logging

from otel_openai_usage.storage.sqlite.marker import MarkerFile, marker_path
from otel_openai_usage.storage.sqlite.page_checksums import LogScanner, PageSums

log = logging.getLogger(__name__)


class MarkerWriter:
    """Used only by the writer's thread.

    A marker that cannot be written does not stop the exporter: the commits themselves are safe.
    """

    def __init__(self, path: str, sums: PageSums, *, has_log: bool) -> None:
        self._path = marker_path(path)
        self._sums = sums
        self._has_log = has_log
        self._scanner = LogScanner(f"{path}-wal")
        self._marker: MarkerFile | None = None
        self._warned = False
        if has_log:
            self._scanner.skip()
        else:
            # Without a log nothing shows which pages a commit changed.
            sums.resize(0)

    def begin(self, instance: str, number: int, time: int, began: int | None) -> None:
        """Write the marker for what is committed by now."""
        self._update_sums()
        self._marker = MarkerFile(self._path, instance)
        self._replace(self._marker, number, time, began)

    def committed(self, number: int, time: int) -> None:
        """Add a commit that is on the disk."""
        changed = self._update_sums()
        if self._marker is None:
            return
        try:
            self._marker.append(number, time, len(self._sums), changed)
        except OSError as error:
            self._warn(error)

    def sync(self, number: int, time: int, began: int | None) -> None:
        """Make the marker survive a power cut, and shorten a long one. Takes some milliseconds."""
        if self._marker is None:
            return
        if self._marker.worth_compacting:
            self._replace(self._marker, number, time, began)
            return
        try:
            self._marker.sync()
        except OSError as error:
            self._warn(error)

    def counting_began(self, number: int, time: int, began: int) -> None:
        """Write down since when the state counts."""
        if self._marker is not None:
            self._replace(self._marker, number, time, began)

    def close(self) -> None:
        """Close the files. A second call does nothing."""
        self._scanner.close()
        if self._marker is not None:
            self._marker.close()

    def _update_sums(self) -> dict[int, int]:
        """Take over the checksums of the pages that were committed since the last call."""
        if not self._has_log:
            return {}
        try:
            changed, page_count = self._scanner.new_pages()
        except OSError as error:
            # The commit is on the disk, so this must not fail it. Which pages it changed stays
            # unknown, so the marker has no checksums from now on.
            self._has_log = False
            self._sums.resize(0)
            if self._marker is not None:
                self._marker.close()
            self._warn(error)
            return {}
        for page, checksum in changed.items():
            self._sums.set(page, checksum)
        if page_count is not None:
            self._sums.resize(page_count)
        return changed

    def _replace(self, marker: MarkerFile, number: int, time: int, began: int | None) -> None:
        try:
            marker.replace(number, time, began, self._sums)
            self._warned = False
        except OSError as error:
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        """Log the first failure until a write succeeds."""
        if self._warned:
            return
        self._warned = True
        facts = {
            "event": "state_marker_failed",
            "path": self._path,
            "error": error.strerror or str(error),
        }
        log.warning("the marker of the state cannot be written; it is tried again", extra=facts)
