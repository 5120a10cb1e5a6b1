"""report.html of a results folder: one file, from disk, without a network, in a browser with or without scripts."""
