"""The Files API in the shapes of OpenAI, the platform and Anthropic."""
