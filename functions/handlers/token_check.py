"""Whether a token is live: open to all, so its function can do no more."""

from kimi_gateway.edge.aws.function import Function

handler = Function("/token/check")
