"""Bytes in and out: the SSE codec (sans-IO) and the one seam to an HTTP client."""
