"""The endpoints that cost no credit: models, token checks and counts, balance, credits, health."""
