"""`python -m vigorl_nano.rooms`: write rendered rooms with questions (see `sample`)."""

from vigorl_nano.rooms.sample import main

if __name__ == "__main__":
    main()
