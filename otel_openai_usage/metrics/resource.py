"""Who we are, for `target_info` and OTLP."""

from collections.abc import Mapping

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.version import __version__ as sdk_version

import otel_openai_usage
from otel_openai_usage.core.snapshot import AttributeValue


def resource(instance_id: str, constant: Mapping[str, AttributeValue]) -> Resource:
    """The resource: what is configured (`attributes.resource`, which has the environment's), on top
    of our defaults.

    `instance_id` is one for the life of the state; the SDK would make up another at every start.
    """
    return Resource(
        {
            "service.name": "otel-openai-usage",
            "service.version": otel_openai_usage.__version__,
            "service.instance.id": instance_id,
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "opentelemetry",
            "telemetry.sdk.version": sdk_version,
            **constant,
        }
    )
