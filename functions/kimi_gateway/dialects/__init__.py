"""Wire formats. OpenAI Chat Completions is the pivot: the upstream speaks it, the others translate to it."""
