"""What an account has and costs, whether the gateway is well, and what no other function serves: preflights,
wrong methods, unknown paths. So it knows the whole table.
"""

from kimi_gateway.edge.aws.function import Function

handler = Function(elsewhere=("/v1/chat/completions", "/v1/messages", "/v1/responses"))
