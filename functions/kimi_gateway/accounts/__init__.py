"""Keys, accounts, limits and credits: pure rules, and stores that each give one atomic step."""
