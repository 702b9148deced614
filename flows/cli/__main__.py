"""`python -m flows.cli`, where no script is installed."""

from flows.cli.app import main

if __name__ == "__main__":
    main()
