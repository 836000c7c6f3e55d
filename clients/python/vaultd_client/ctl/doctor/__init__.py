"""`vaultctl doctor`: what is in the way of a call, from the files here to the policy there.

Each module looks at one part and tells findings; command.py puts them in order and writes them.
"""
