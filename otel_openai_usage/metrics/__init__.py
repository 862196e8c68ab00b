"""What readers see: the Board as Prometheus bytes and as OTLP, and the exporter's own health."""
