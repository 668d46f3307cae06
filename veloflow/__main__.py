"""``python -m veloflow``: the command line without the script on the path."""

from veloflow.cli import main

if __name__ == "__main__":
    main()
