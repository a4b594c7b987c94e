"""Files: uploads, and what is known of them."""

from kimi_gateway.edge.aws.function import Function

handler = Function("/v1/files", "/v1/files/{file}", "/v1/files/{file}/content")
