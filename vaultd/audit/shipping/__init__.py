"""Carries records from the segments of the audit log to where others read them: at least once, in order, with a cursor each.

Nothing here writes to the log, and nothing of the log waits for anything here but the calls that are configured to.
"""
