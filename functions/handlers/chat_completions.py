"""Chats, streamed."""

from kimi_gateway.edge.aws.function import Function

handler = Function(
    "/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/responses/compact", streamed=True
)
