"""The service that keeps the published files true: it watches what was read, and compiles when that changes."""
