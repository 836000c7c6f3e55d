"""The audit log: one record per call, written before the reply is released.

Only fields that the rules table allows; never payloads.
"""
