"""Single-point changes of the core that tests should notice; see `__main__`."""
