"""Names of OpenTelemetry's semantic conventions that we use.

Source of `gen_ai.*`: github.com/open-telemetry/semantic-conventions-genai, docs/gen-ai/gen-ai-spans.md and
gen-ai-metrics.md, both of the status Development, as of 2026-11-28 (on top of semantic conventions v1.42.0).
The names of histograms are in `observe/families.py`. `kimi_gateway.*` are our own.
"""

from __future__ import annotations

SCHEMA = "https://opentelemetry.io/schemas/1.42.0"
SCOPE = "kimi_gateway"

# Stable names: service, HTTP, error.
SERVICE, INSTANCE, VERSION = "service.name", "service.instance.id", "service.version"
METHOD, ROUTE, PATH, STATUS = "http.request.method", "http.route", "url.path", "http.response.status_code"
ERROR = "error.type"

# Generative AI.
OPERATION, CHAT = "gen_ai.operation.name", "chat"
PROVIDER, MODEL, STREAM = "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.request.stream"
INPUT, OUTPUT = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
CACHED = "gen_ai.usage.cache_read.input_tokens"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105  a name
# Well-known values of gen_ai.provider.name; the names of other providers are sent as they are.
PROVIDERS = {"moonshot": "moonshot_ai"}

# Our labels (observe/families.py) as attributes.
ATTRIBUTES = {"provider": PROVIDER, "model": MODEL, "type": TOKEN_TYPE, "error": ERROR}

REQUEST_ID, KEY, ACCOUNT = "kimi_gateway.request.id", "kimi_gateway.key.id", "kimi_gateway.account.id"
TOKEN = "kimi_gateway.token.id"  # noqa: S105  a name
OUTCOME, ATTEMPTS, COST = "kimi_gateway.outcome", "kimi_gateway.attempts", "kimi_gateway.cost_usd"
