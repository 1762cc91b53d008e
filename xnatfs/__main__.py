"""`python -m xnatfs`."""

from xnatfs.cli import main

if __name__ == "__main__":
    main()
