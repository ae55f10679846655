"""The teacher: cited answers to distil."""
