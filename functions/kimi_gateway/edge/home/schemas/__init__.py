"""JSON schemas of requests and answers, as data, for the OpenAPI document. Loaded with its first reader."""
