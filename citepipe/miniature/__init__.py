"""The miniature: a synthetic world, its teacher, its oracle and its base model.

Everything else in the package works on real data and knows nothing of this one; the miniature is
what lets the whole pipeline run in minutes on two cores, with real code paths.
"""
