"""The only way to write: build all, verify, sync, rename.  Knows rules, not qmail."""
