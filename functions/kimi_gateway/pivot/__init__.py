"""The inner format, OpenAI's Chat Completions: requests, chunks, and rules that all dialects share."""
