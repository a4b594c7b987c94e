"""Fetches addresses from clients without reaching anything that is not public."""
