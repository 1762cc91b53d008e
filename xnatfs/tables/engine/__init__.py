"""From a project to a table: discovery, collection, building, files."""
