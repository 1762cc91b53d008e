"""Who logs in: where credentials are found, and the token store."""
