"""Anthropic Messages: requests into the pivot, the pivot's chunks as its blocks and events."""
