"""The resource that sends the metrics, for `target_info` and OTLP."""

import json
from collections.abc import Mapping
from uuid import UUID, uuid5

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.version import __version__ as sdk_version

import otel_openai_usage
from otel_openai_usage.domain.snapshot import AttributeValue

_INSTANCE_ID = "service.instance.id"
_NAMESPACE = UUID("0d5a1c5e-2f0b-4d2f-9a51-6f1a3c0c7b11")
"""Ours, for derived ids. It must never change: to a backend a new id is a new series."""


def resource(instance_id: str | None, configured: Mapping[str, AttributeValue]) -> Resource:
    """Return our resource. `configured` (`attributes.resource`) overrides the defaults.

    `instance_id` is constant for the life of the state: the SDK would invent another at every
    start. It is None until the state is read.
    """
    instance = {} if instance_id is None else {_INSTANCE_ID: instance_id}
    defaults = {
        "service.name": "otel-openai-usage",
        "service.version": otel_openai_usage.__version__,
        **instance,
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": sdk_version,
    }
    return Resource({**defaults, **configured})


def with_moved(common: Resource, moved: Mapping[str, AttributeValue]) -> Resource:
    """Return the resource of series whose attributes `moved` stand in the resource.

    Backends such as Prometheus identify a series by job and instance (service.name and
    service.instance.id) and its own attributes. So without an id of their own, the series of two
    organizations would be one. The id is derived from the common one and from the moved attributes:
    it is the same after every restart.
    """
    common_id = common.attributes.get(_INSTANCE_ID, "")
    name = json.dumps([common_id, sorted(moved.items())])
    instance_id = str(uuid5(_NAMESPACE, name))
    return common.merge(Resource({**moved, _INSTANCE_ID: instance_id}))
