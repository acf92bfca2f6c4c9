"""How close the product is to the machine's limits: lower bounds (floors), the product, and naive code.

Uses the product as users do, without the terminal. Every figure is a ratio of alternating measurements (A, B, A, B) in
one run; absolute times depend on what else the machine does.
"""
