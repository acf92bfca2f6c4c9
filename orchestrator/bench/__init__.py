"""How near to the machine's limit the product runs: floors, the real thing, and what people would write instead.

Uses the product as users do, and knows nothing of the terminal. Every figure is a ratio of things measured in
turn (A, B, A, B) in one run; absolute times depend on what else the machine does.
"""
