"""`mammodet convert` as a file."""

from mammodet.cli import run
from mammodet.commands.convert import main

if __name__ == "__main__":
    run(main)
