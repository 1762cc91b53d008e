"""How bytes come: whole files, ranges, zips, readahead."""
