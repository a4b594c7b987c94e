"""Wire formats of clients. OpenAI Chat Completions is the inner format (pivot); the others translate to
it."""
