"""The function of chats behind an API that does not stream."""

from kimi_gateway.edge.aws.function import Function

handler = Function("/v1/chat/completions", "/v1/messages", "/v1/responses", streamed=False)
