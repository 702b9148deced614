"""The claim for zoom: what looking closer, searching where to look, and reinforcement are worth."""
