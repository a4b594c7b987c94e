"""Where accounts, credits, conversations and outages are kept: in memory, in SQLite, or in DynamoDB."""
