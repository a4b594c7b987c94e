"""JSON Schemas in the vendor's dialect."""
