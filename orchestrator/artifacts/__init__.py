"""A workspace's runs, cards, held-out answers and ensembles; read strictly, written atomically, deleted safely."""
