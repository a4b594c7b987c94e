"""The web service of kimi.com, with a session of one's own. Off unless the operator switches it on."""
