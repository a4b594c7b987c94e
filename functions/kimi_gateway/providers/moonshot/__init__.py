"""The Kimi Open Platform: its addresses and answers, and every rule that its models have."""
