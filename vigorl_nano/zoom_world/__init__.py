"""Large pictures of signs: what a sign says can be read only in a crop."""
