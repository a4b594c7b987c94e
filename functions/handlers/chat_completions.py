"""Chats, streamed."""

from kimi_gateway.edge.event import Function

handler = Function("/v1/chat/completions", streamed=True)
