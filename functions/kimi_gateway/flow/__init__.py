"""The flow of one request: it is read, admitted, sent upstream in attempts, and settled."""
