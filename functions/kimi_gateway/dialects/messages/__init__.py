"""Anthropic Messages: requests into the pivot, the pivot's chunks into blocks and events."""
