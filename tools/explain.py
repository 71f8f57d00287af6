"""`mammodet explain` as a file."""

from mammodet.cli import run
from mammodet.commands.explain import main

if __name__ == "__main__":
    run(main)
