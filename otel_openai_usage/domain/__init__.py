"""Pure: values in, values out. No clock, no network, no disk, and no import from this package."""
