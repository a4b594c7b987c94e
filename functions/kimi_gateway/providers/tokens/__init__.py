"""The pool of upstream tokens: which one serves a request, and what is known against each."""
