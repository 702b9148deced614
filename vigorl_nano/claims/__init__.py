"""Claims tested on the embedded models, each an experiment in stages: what points, looks and trees
are worth."""
