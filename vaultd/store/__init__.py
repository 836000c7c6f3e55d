"""Durable rows of sealed blobs, and the feed of what changed.

No keys and no rules: a store commits or raises.
"""
