"""Logs of mail servers, read line by line: what became of which recipient.

One file a format; each knows nothing of hosts and lists.  `reading` opens the files and
`logs` gives each line to the format it belongs to.
"""
