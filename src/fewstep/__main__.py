"""``python -m fewstep``: the command line."""

from fewstep.eval.cli import main

if __name__ == "__main__":
    main()
