"""The endpoints that are free: models, token checks and counts, balance, credits, health."""
