"""Old import paths of 0.1. They go with the next release: see `domain` instead."""
