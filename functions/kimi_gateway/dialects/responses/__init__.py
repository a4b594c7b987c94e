"""OpenAI Responses: translated into the pivot and back."""
