"""``python -m ntangent``: the command line."""

from ntangent.cli import main

if __name__ == "__main__":
    main()
