"""Other libraries on top of a vault: one module for each, which imports that library, and nothing here imports the modules."""
