"""MetricsData in requests that a Collector takes."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from opentelemetry.sdk.metrics.export import Metric, MetricsData, ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.resources import Resource

SIZE = 5_000
"""Points in a request. A Collector's gRPC receiver takes 4 MiB by default; our points have some 350
bytes, and up to 800 fit.
"""
PIECE = 500
"""A metric is cut at multiples of so many points, so that it is cut alike in every request,
whatever stands before it.
"""


def joined(first: MetricsData, second: MetricsData | None) -> MetricsData:
    """Both, with one ResourceMetrics per resource: the SDK's encoder keeps only the last of two
    equal ones.

    For the same reason the two must not share a scope.
    """
    scopes: dict[Resource, list[ScopeMetrics]] = {}
    for data in (first, second):
        for part in data.resource_metrics if data else ():
            scopes.setdefault(part.resource, []).extend(part.scope_metrics)
    return MetricsData([ResourceMetrics(resource, parts, "") for resource, parts in scopes.items()])


def batches(data: MetricsData, size: int = SIZE) -> Iterator[MetricsData]:
    """The same points in order, at most `size` at a time; somewhat less where a PIECE would be cut."""
    batch: list[tuple[ResourceMetrics, ScopeMetrics, Metric]] = []
    room = size
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                points = metric.data.data_points
                at = 0
                while at < len(points):
                    part = points[
                        at : at
                        + (room if len(points) - at <= room else room - room % min(PIECE, size))
                    ]
                    if part:
                        data_part = replace(metric.data, data_points=part)  # type: ignore[arg-type]  # of the same kind
                        batch.append((resource, scope, replace(metric, data=data_part)))
                        at = at + len(part)
                        room = room - len(part)
                    if at < len(points) or not room:
                        yield _assembled(batch)
                        batch = []
                        room = size
    if batch:
        yield _assembled(batch)


def _assembled(parts: Sequence[tuple[ResourceMetrics, ScopeMetrics, Metric]]) -> MetricsData:
    return MetricsData(
        [
            replace(
                of_resource[0][0],
                scope_metrics=[
                    replace(of_scope[0][1], metrics=[metric for _, _, metric in of_scope])
                    for of_scope in (
                        list(group) for _, group in groupby(of_resource, lambda part: id(part[1]))
                    )
                ],
            )
            for of_resource in (
                list(group) for _, group in groupby(parts, lambda part: id(part[0]))
            )
        ]
    )
