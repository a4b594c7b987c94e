"""The model list."""

from kimi_gateway.edge.aws.function import Function

handler = Function("/v1/models", "/v1/models/{model+}")
