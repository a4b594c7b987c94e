"""Runs the command line with `python -m kimi_gateway.cli`."""

from kimi_gateway.cli import main

if __name__ == "__main__":
    main()
