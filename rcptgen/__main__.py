"""`python -I -m rcptgen`: the command line."""

from rcptgen.cli import main

if __name__ == "__main__":
    main()
