"""Photos in, answers out: readers, runtimes, engines, cascades, exports, tables of answers."""
