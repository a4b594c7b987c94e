"""Files, documents, pictures and videos of clients: what they are, and their way to the provider."""
