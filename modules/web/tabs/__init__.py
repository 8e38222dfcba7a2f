"""One file per tab: ``build`` lays it out, ``wire`` connects it."""
