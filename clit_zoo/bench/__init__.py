"""How long models take on this machine, and how much memory: what ``clit-zoo bench`` prints.

``cases`` is what is timed and what must be right before, ``measure`` the clock, ``memory`` the peak,
``machine`` what it all ran on, ``plot`` the picture of it. The operations alone are timed by
``kernels/benchmarks``.
"""
