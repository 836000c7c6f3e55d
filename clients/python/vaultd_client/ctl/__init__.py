"""The command line `vaultctl`: one file for each group of commands, and what they share.

root.py names all commands and imports none of them before it is asked for.  Nothing but vaultctl may import from here.
"""
