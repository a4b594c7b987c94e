"""The edge at home: HTTP/1.1 inside uvicorn, ASGI, the docs pages."""
