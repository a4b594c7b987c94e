"""Vendors with the API of OpenAI: one provider, driven by a row of catalog/vendors.py."""
