"""The function of chats, with less patience than API Gateway has."""

from kimi_gateway.edge.aws.function import Function, Patience

handler = Function(
    "/v1/chat/completions", "/v1/messages", "/v1/responses", streamed=True, patience=Patience(0.4, 0.15)
)
