"""Pure values: what happens to an address, and tables of names.  No I/O, no clock, no logging."""
