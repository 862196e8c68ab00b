"""Who we are, for `target_info` and OTLP."""

import json
from collections.abc import Mapping
from uuid import UUID, uuid5

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.version import __version__ as sdk_version

import otel_openai_usage
from otel_openai_usage.domain.snapshot import AttributeValue

_INSTANCE = "service.instance.id"
_NAMESPACE = UUID("0d5a1c5e-2f0b-4d2f-9a51-6f1a3c0c7b11")
"""Ours, for ids that are derived. It must never change: a new id is a new series to a backend."""


def resource(instance_id: str | None, constant: Mapping[str, AttributeValue]) -> Resource:
    """The resource: what is configured (`attributes.resource`, which has the environment's), on top
    of our defaults.

    `instance_id` is one for the life of the state; the SDK would make up another at every start.
    None until the state is read.
    """
    instance = {} if instance_id is None else {_INSTANCE: instance_id}
    return Resource(
        {
            "service.name": "otel-openai-usage",
            "service.version": otel_openai_usage.__version__,
            **instance,
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "opentelemetry",
            "telemetry.sdk.version": sdk_version,
            **constant,
        }
    )


def with_moved(common: Resource, moved: Mapping[str, AttributeValue]) -> Resource:
    """The resource of the series whose attributes `moved` stand in the resource.

    Backends such as Prometheus know a series by job and instance (service.name and
    service.instance.id) and its own attributes, so without an id of their own the series of two
    organizations would be one. The id is derived from the common one and from what moved: the same
    after every restart.
    """
    base = common.attributes.get(_INSTANCE, "")
    instance_id = uuid5(_NAMESPACE, json.dumps([base, sorted(moved.items())]))
    return common.merge(Resource({**moved, _INSTANCE: str(instance_id)}))
