"""Stores of accounts, credits, conversations and outages: in memory, in SQLite, or in DynamoDB."""
