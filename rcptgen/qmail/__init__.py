"""qmail's own files, parsed into values that remember file and line; they decide nothing about other files."""
