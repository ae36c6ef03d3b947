"""Turn models into HTML: templates, words, forms and drawings."""
