"""`mammodet pack` as a file."""

from mammodet.cli import run
from mammodet.commands.pack import main

if __name__ == "__main__":
    run(main)
