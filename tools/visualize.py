"""`mammodet visualize` as a file."""

from mammodet.cli import run
from mammodet.commands.visualize import main

if __name__ == "__main__":
    run(main)
