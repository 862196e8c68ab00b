"""OpenAI: its endpoints, client, decoding, names, limits, prices and keys."""
