"""`mammodet convert-weights` as a file."""

from mammodet.cli import run
from mammodet.commands.convert_weights import main

if __name__ == "__main__":
    run(main)
