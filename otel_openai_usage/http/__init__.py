"""The HTTP server: TLS, authentication, content negotiation, limits."""
