"""The snapshot as observable instruments of any MeterProvider."""
