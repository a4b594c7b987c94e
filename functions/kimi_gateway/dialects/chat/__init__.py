"""OpenAI Chat Completions, and with it the pivot."""
