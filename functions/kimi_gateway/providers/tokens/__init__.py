"""The pool of upstream tokens: choice for each request, and known outages."""
