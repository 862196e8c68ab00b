"""One folder for each provider of usage."""
