"""Networking: the SSE codec, which does no I/O, and the HTTP client."""
