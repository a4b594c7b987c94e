"""Credits, balance, token counts and health, and everything that no other function serves: preflights, wrong
methods, unknown paths. So it has the whole routing table."""

from kimi_gateway.edge.aws.function import Function

handler = Function(
    elsewhere=("/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/responses/compact")
)
