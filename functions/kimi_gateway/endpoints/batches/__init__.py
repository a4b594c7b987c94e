"""Batches: files of requests that the platform answers within hours, for accounts without credits."""
