"""How a specialist is trained, as values: their schema, their files, what is wrong with them, spaces of them."""
