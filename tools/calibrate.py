"""`mammodet calibrate` as a file."""

from mammodet.cli import run
from mammodet.commands.calibrate import main

if __name__ == "__main__":
    run(main)
