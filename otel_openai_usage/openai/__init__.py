"""OpenAI's organization API: HTTP, retries, rate and key; JSON to rows; the sources over them."""
