"""The operator's API, /admin: accounts, keys, usage, upstream tokens and recent requests."""
