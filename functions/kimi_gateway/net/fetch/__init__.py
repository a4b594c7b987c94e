"""Fetches addresses that strangers name, without reaching anything that is not public."""
