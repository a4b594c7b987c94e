"""Upstreams: an address, a way to stream from it, and what its failures mean."""
