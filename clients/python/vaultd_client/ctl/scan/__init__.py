"""`vaultctl scan`: copies of stored secrets in files, found without their being shown.  docs/scan.md says how and what it leaks.

marks.py     the parts of a secret that are looked for
texts.py     the parts of a file that are compared, however they are written down
fingerprints.py  the comparison: a filter that says little, and the vault's word
index.py     fingerprints in a file
trees.py     the files to look at
"""
