"""The Kimi Open Platform: its addresses and answers, and all rules of its models."""
