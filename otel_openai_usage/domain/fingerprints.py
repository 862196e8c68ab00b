"""Fingerprints of the buckets whose rows are stored, so that a bucket is decoded only once."""

from collections.abc import Iterable, Iterator

from otel_openai_usage.domain.model import Width, Window, floor


class Fingerprints:
    """Fingerprints by bucket, in memory only. If one is missing, its bucket is decoded again."""

    def __init__(self) -> None:
        self._by_bucket: dict[tuple[int, int], bytes] = {}
        self._compacted_before = 0

    def __len__(self) -> int:
        return len(self._by_bucket)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The buckets, as width and start."""
        return iter(self._by_bucket)

    def __contains__(self, bucket: tuple[int, int]) -> bool:
        return bucket in self._by_bucket

    def get(self, width: int, start: int) -> bytes | None:
        """The fingerprint of a bucket whose rows are stored, else None."""
        return self._by_bucket.get((width, start))

    def known(self, window: Window, width: Width) -> dict[int, bytes]:
        """The fingerprints of the window's buckets, by the start of the bucket."""
        known = {}
        for start in range(window.start, window.end, width):
            fingerprint = self.get(width, start)
            if fingerprint is not None:
                known[start] = fingerprint
        return known

    def set(self, width: int, start: int, fingerprint: bytes) -> None:
        """Note that the store has exactly the rows of this bucket."""
        self._by_bucket[width, start] = fingerprint

    def discard(self, width: int, start: int) -> None:
        """Note that the store no longer has the rows that this bucket was read with."""
        self._by_bucket.pop((width, start), None)

    def discard_wider(self, width: Width, starts: Iterable[int]) -> None:
        """Discard the wider buckets of changed buckets: their sums must be compared again."""
        changed = list(starts)
        for wider in Width:
            if wider > width:
                for start in changed:
                    self.discard(wider, floor(start, wider))

    def discard_within(self, window: Window) -> None:
        """Discard all buckets that begin in the window."""
        for width, start in list(self._by_bucket):
            if start in window:
                self.discard(width, start)

    def clear(self) -> None:
        """Discard all, so that every bucket is decoded again."""
        self._by_bucket.clear()

    def has_minutes_before(self, time: int) -> bool:
        """Whether the store may have minutes before then: this process did not compact them."""
        return floor(time, Width.HOUR) > self._compacted_before

    def compacted(self, before: int) -> None:
        """Note that the store downsampled the minutes before then to hours."""
        self._compacted_before = floor(before, Width.HOUR)
        for width, start in list(self._by_bucket):
            if width == Width.MINUTE and start < before:
                self.discard(width, start)
