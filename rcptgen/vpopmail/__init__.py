"""vpopmail's files and databases."""
