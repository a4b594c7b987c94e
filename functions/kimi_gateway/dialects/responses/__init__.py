"""OpenAI Responses: read into the pivot, and written from it."""
