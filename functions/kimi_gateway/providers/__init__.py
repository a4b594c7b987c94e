"""Upstreams: their addresses, streams and failures."""
