"""Turn a snapshot into what readers understand."""
