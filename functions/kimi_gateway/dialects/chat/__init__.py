"""OpenAI Chat Completions, the format of the pivot."""
