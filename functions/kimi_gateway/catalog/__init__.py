"""Models and the vendor's quirks, as data with sources and dates."""
