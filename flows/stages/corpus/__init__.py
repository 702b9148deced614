"""The second pass of curation: filters that must see a trace beside others of its task."""
