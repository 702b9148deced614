"""The terse prompts of the embedded models; `mcts.prompts` finds them through entry points."""
