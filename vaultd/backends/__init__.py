"""Where key bytes are used: a backend turns (algorithm, handle, input) into output.

No policy, no resource names, no SQL.
"""
