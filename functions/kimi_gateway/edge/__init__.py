"""The ways in: HTTP as values, and what translates ASGI (and later Lambda events) to and from them."""
