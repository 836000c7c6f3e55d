"""The parts of a run: each asks the stand for what it measures, and hands over findings.  A part knows no other part."""
