"""Keys, accounts, limits and credits: pure rules, and the protocol of stores."""
