"""Other people's programs against `kimi-gateway serve`, each in a network namespace that has only loopback.

`scripts/clients [NAME…]` runs them; they are too heavy for the default suite. A folder holds one program: its
lock, and `check.py`, whose test names are the sentences in docs/clients.md.
"""
