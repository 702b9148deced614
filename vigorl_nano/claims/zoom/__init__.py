"""The claim on questions that need a look, `make claim`: what zoom, search and RL are worth."""
