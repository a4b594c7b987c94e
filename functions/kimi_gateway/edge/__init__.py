"""The edges: HTTP as values, and the translation of ASGI, HTTP/1.1 and Lambda events to and from them."""
