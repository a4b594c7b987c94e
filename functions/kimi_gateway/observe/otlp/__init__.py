"""OpenTelemetry's data: options of the environment, trace context, and OTLP's JSON. No input or output."""
