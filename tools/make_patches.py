"""`mammodet patches` as a file."""

from mammodet.cli import run
from mammodet.commands.patches import main

if __name__ == "__main__":
    run(main)
