"""Models and the vendor's rules for them, as data with sources and dates."""
