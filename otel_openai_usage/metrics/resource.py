"""Who we are, for `target_info` and OTLP."""

from collections.abc import Mapping
from urllib.parse import unquote

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.version import __version__ as sdk_version

import otel_openai_usage


def resource(instance_id: str, constant: Mapping[str, str], env: Mapping[str, str]) -> Resource:
    """The resource: `constant` (the file) beats OTEL_SERVICE_NAME, that beats OTEL_RESOURCE_ATTRIBUTES, those our defaults.

    `instance_id` is one for the life of the state; the SDK would make up another at every start.
    """
    attributes = {
        "service.name": "otel-openai-usage",
        "service.version": otel_openai_usage.__version__,
        "service.instance.id": instance_id,
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": sdk_version,
    }
    attributes |= parse(env.get("OTEL_RESOURCE_ATTRIBUTES", ""))
    if name := env.get("OTEL_SERVICE_NAME", "").strip():
        attributes["service.name"] = name
    return Resource({**attributes, **constant})


def parse(text: str) -> dict[str, str]:
    """`key=value,key=value` with percent-encoded values, as the OpenTelemetry specification writes OTEL_RESOURCE_ATTRIBUTES.

    What has no `=`, or no key, is left out.
    """
    pairs = (item.partition("=") for item in text.split(","))
    return {key.strip(): unquote(value.strip()) for key, equals, value in pairs if equals and key.strip()}
