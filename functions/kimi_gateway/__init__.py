"""Kimi Gateway: an LLM endpoint of your own for the Kimi models."""

__version__ = "0.1.0"
