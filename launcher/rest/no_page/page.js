// Nothing: the page was not built.
