"""Reports of stored history, their formats, and the reading of the past into the store."""
