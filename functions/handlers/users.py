"""Users' own doing: registration, keys, payments. No other function may open accounts or change keys."""

from kimi_gateway.edge.aws.function import Function

handler = Function("/user/register", "/user/keys", "/user/keys/{key}", "/webhooks/payment")
