"""History in files: CSV, JSON, FOCUS, OpenMetrics, past OTLP."""
