"""Web search that the gateway runs between the rounds of a turn."""
