"""Files, documents, pictures and videos of clients: their types, and their way to the provider."""
