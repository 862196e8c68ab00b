"""Turns a snapshot into what readers understand: OTLP, Prometheus, instruments of the SDK."""
